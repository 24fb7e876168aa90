"""Stage `sft`: fine-tunes, on every task, the teacher and one student per seed.

The teacher sees the whole training split. A student sees few rows of it, drawn by its seed, and
every distillation of that seed sees the same rows. Runs train side by side, the teachers' long ones
first.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pipelines.parameters import At
from pipelines.runs import folders
from pipelines.runs.engines import run_jobs
from pipelines.runs.folders import BASE, SFT, STUDENT_FOLDER, TEACHER_FOLDER
from pipelines.runs.inputs import training_data
from pipelines.runs.jobs import Finished
from pipelines.runs.machine import Machine
from pipelines.runs.specs import tuning
from pipelines.runs.training import MODEL, RunSpec
from pipelines.settings.runtime import Runtime
from pipelines.stages.command import run_command, stage_parameters, took, write_metrics
from skd.files import write_folder
from skd.models.folders import held_in, hold_in
from skd.models.settings import Budget
from skd.results.runs import SftResult, TrainedRun
from skd.settings import Name, Names, SomeSeeds
from skd.training.settings import Sft


@dataclass(frozen=True)
class Parameters:
    tasks: Annotated[Names, At("experiment.tasks")]
    seeds: Annotated[SomeSeeds, At("experiment.seeds")]
    budget: dict[Name, Budget]
    sft: Sft
    decoding_batch: Annotated[int, At("evaluate.batch_size")]
    runtime: Runtime


@dataclass(frozen=True)
class TunedModel:
    """A model to be tuned: where it goes, and the run that makes it."""

    task: str
    # Of its folder under models/sft/TASK
    name: str
    spec: RunSpec


def models_to_tune(parameters: Parameters) -> list[TunedModel]:
    """Teachers first: their runs are long, and a long run should not be left for last."""
    tasks = {name: training_data(name, parameters.budget[name]) for name in parameters.tasks}
    tuned = []
    if parameters.sft.teacher is not None:
        for name, task in tasks.items():
            spec = tuning(
                f"sft-{name}-teacher", task, BASE / TEACHER_FOLDER, parameters.sft.teacher, seed=0
            )
            tuned.append(TunedModel(name, TEACHER_FOLDER, spec))
    for seed in parameters.seeds:
        for name, task in tasks.items():
            spec = tuning(
                f"sft-{name}-student-{seed}",
                task,
                BASE / STUDENT_FOLDER,
                parameters.sft.student,
                seed,
                task.budget.student_examples,
            )
            tuned.append(TunedModel(name, folders.start(name, seed).name, spec))
    return tuned


def sft(parameters: Parameters) -> SftResult:
    """Fill models/sft/TASK with the teacher and the students; returns what their runs say."""
    machine = Machine.of(parameters.runtime, parameters.decoding_batch)
    tuned = models_to_tune(parameters)
    runs = run_jobs([model.spec for model in tuned], machine, extra=1)
    write_folder(SFT, lambda folder: _publish(folder, parameters, tuned, runs))
    tasks = {
        task: {
            model.name: run.result
            for model, run in zip(tuned, runs, strict=True)
            if model.task == task
        }
        for task in parameters.tasks
    }
    return SftResult(took(machine.device), tasks)


def _publish(
    folder: Path,
    parameters: Parameters,
    tuned: Sequence[TunedModel],
    runs: Sequence[Finished[TrainedRun]],
) -> None:
    for model, run in zip(tuned, runs, strict=True):
        shutil.copytree(run.folder / MODEL, folder / model.task / model.name)
        if model.name == TEACHER_FOLDER:
            hold_in(folder / model.task / model.name, held_in(BASE / TEACHER_FOLDER))
    if parameters.sft.teacher is None:  # it came tuned
        for task in parameters.tasks:
            shutil.copytree(BASE / TEACHER_FOLDER, folder / task / TEACHER_FOLDER)


def main(argv: list[str] | None = None) -> None:
    write_metrics("sft", sft(stage_parameters(Parameters, __doc__, argv)))


if __name__ == "__main__":
    run_command(main)
