"""Stage `scaling`: another student for the same teacher, from its base to its distillation.

Scored on the validation split; never reads a test split. The student of `models` is not trained
again: its runs stand in `distill`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Annotated

from pipelines.closure import code_of
from pipelines.parameters import At
from pipelines.runs.engines import run_jobs
from pipelines.runs.folders import BASE, TEACHER_FOLDER
from pipelines.runs.inputs import DATA, training_data
from pipelines.runs.machine import Machine
from pipelines.runs.placing import base_corpora, check_fit, materialise, pretrain, untrained
from pipelines.runs.scratch import alone, fingerprint, key
from pipelines.runs.specs import distilling, tuning
from pipelines.runs.training import MODEL
from pipelines.settings.runtime import Runtime
from pipelines.stages.command import item_parameters, run_command, took, write_metrics
from skd.files import write_folder
from skd.models.loading import load_model, load_tokenizer, measure_model
from skd.models.settings import Budget, Models, ProceduralModel, StudentModel
from skd.results.analyses import ScalingResult
from skd.results.runs import Seeds
from skd.seals import damaged, seal
from skd.settings import Name, Names, SomeSeeds
from skd.training.settings import Distill, MethodSettings, Optimisation


@dataclass(frozen=True)
class Parameters:
    all_tasks: Annotated[Names, At("experiment.tasks")]
    budget: dict[Name, Budget]
    models: Models
    tuning: Annotated[Optimisation, At("sft.student")]
    distill: Distill
    rows: Annotated[dict[Name, MethodSettings], At("methods")]
    methods: Annotated[Names, At("scaling.methods")]
    tasks: Annotated[Names, At("scaling.tasks")]
    seeds: Annotated[SomeSeeds, At("scaling.seeds")]
    student: Annotated[StudentModel, At("scaling.students.{item}")]
    decoding_batch: Annotated[int, At("evaluate.batch_size")]
    runtime: Runtime


def scale(parameters: Parameters, name: str) -> ScalingResult:
    """Make, tune and distil the student; returns its size and what its runs say.

    name: the student's row.
    """
    machine = Machine.of(parameters.runtime, parameters.decoding_batch)
    base = _place(name, parameters, machine)
    tasks = {task: training_data(task, parameters.budget[task]) for task in parameters.tasks}
    starts = list(product(parameters.tasks, parameters.seeds))
    specs = [
        tuning(
            f"sft-{task}-{name}-{seed}",
            tasks[task],
            base,
            parameters.tuning,
            seed,
            tasks[task].budget.student_examples,
        )
        for task, seed in starts
    ]
    tuned = dict(zip(starts, run_jobs(specs, machine, extra=1), strict=True))
    wanted = list(product(parameters.tasks, parameters.methods, parameters.seeds))
    specs = [
        distilling(
            f"{task}-{name}-{method}-{seed}",
            tasks[task],
            parameters.rows[method],
            parameters.distill,
            seed,
            start_folder=base
            if parameters.rows[method].student_init == "instruct"
            else tuned[task, seed].folder / MODEL,
        )
        for task, method, seed in wanted
    ]
    runs: dict[str, dict[str, Seeds]] = {}
    for (task, method, seed), run in zip(wanted, run_jobs(specs, machine, extra=1), strict=True):
        runs.setdefault(task, {}).setdefault(method, {})[str(seed)] = run.result
    return ScalingResult(
        took=took(machine.device),
        student=parameters.student,
        size=measure_model(load_model(base)),
        kinds={name: task.kind for name, task in tasks.items()},
        starts={
            task: {str(seed): tuned[task, seed].result.validation for seed in parameters.seeds}
            for task in parameters.tasks
        },
        runs=runs,
    )


def _place(name: str, parameters: Parameters, machine: Machine) -> Path:
    """The untrained student in a scratch folder of its own, checked against the teacher."""
    decisive = (
        parameters.student,
        parameters.models,
        machine.device.type,
        fingerprint(BASE / TEACHER_FOLDER),
        [fingerprint(DATA / task) for task in parameters.all_tasks],
        code_of("pipelines.runs.placing"),
    )
    place = machine.scratch / f"student-{name}-{key(*decisive)}"
    with alone(place):  # other stages and experiments share scratch
        if not place.exists() or damaged(place):
            write_folder(place, partial(_fill, name=name, parameters=parameters, machine=machine))
    return place / name


def _fill(place: Path, name: str, parameters: Parameters, machine: Machine) -> None:
    settings, models, teacher_folder = parameters.student, parameters.models, BASE / TEACHER_FOLDER
    base, tasks = place / name, parameters.all_tasks
    if isinstance(settings, ProceduralModel):
        corpora = base_corpora(tasks)
        untrained(base, settings, load_tokenizer(teacher_folder))
        pretrain({base: settings}, corpora, machine)
    else:
        parameter = f"scaling.students.{name}"
        materialise(base, parameter, settings, models, teacher_folder, tasks, machine)
    check_fit(teacher_folder, base, models.template_mismatch, models.cross_tokenizer)
    seal(place)


def main(argv: list[str] | None = None) -> None:
    name, parameters = item_parameters(
        Parameters, __doc__, argv, item="student", section="scaling.students"
    )
    write_metrics(f"scaling/{name}", scale(parameters, name))


if __name__ == "__main__":
    run_command(main)
