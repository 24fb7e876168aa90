"""Stage `sweep`: a method trained for each value of one setting, scored on validation.

One stage runs all rows of `sweeps` that the experiment asks for, because importing the libraries
takes longer than a small run. The runs share scratch with each other and with `distill`, so a value
that a method has anyway trains nothing new where the validation rows agree. Never reads a test
split.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Annotated, Any

from pipelines.parameters import At
from pipelines.runs.engines import run_jobs
from pipelines.runs.inputs import TaskData, training_data
from pipelines.runs.machine import Machine
from pipelines.runs.specs import distilling
from pipelines.runs.training import RunSpec
from pipelines.settings.runtime import Runtime
from pipelines.settings.sweeps import STUDENT_EXAMPLES, Sweep
from pipelines.stages.command import run_command, stage_parameters, took, write_metrics
from skd.models.settings import Budget
from skd.results.analyses import SweepResult, SweepRuns
from skd.results.runs import Seeds
from skd.settings import Name, Names, label
from skd.training.settings import Distill, MethodSettings


@dataclass(frozen=True)
class Parameters:
    budget: dict[Name, Budget]
    distill: Distill
    methods: dict[Name, MethodSettings]
    wanted: Annotated[Names, At("experiment.sweeps")]
    sweeps: dict[Name, Sweep]
    decoding_batch: Annotated[int, At("evaluate.batch_size")]
    runtime: Runtime


@dataclass(frozen=True)
class SweepRun:
    """One run: a value of a sweep on a task with a seed."""

    sweep: str
    task: str
    value: Any
    seed: int


def sweep(parameters: Parameters) -> SweepResult:
    """Train every value of every sweep that is asked for; returns what the runs say."""
    machine = Machine.of(parameters.runtime, parameters.decoding_batch)
    wanted = list(_wanted(parameters))
    names = {run.task for run in wanted}
    tasks = {name: training_data(name, parameters.budget[name]) for name in names}
    specs = [_spec(parameters, run, tasks[run.task]) for run in wanted]
    runs = run_jobs(specs, machine, extra=1)
    values: dict[str, dict[str, dict[str, Seeds]]] = {name: {} for name in parameters.wanted}
    for one, finished in zip(wanted, runs, strict=True):
        by_value = values[one.sweep].setdefault(one.task, {})
        by_value.setdefault(label(one.value), {})[str(one.seed)] = finished.result
    return SweepResult(
        took(machine.device),
        {
            name: SweepRuns(
                method=parameters.sweeps[name].method,
                setting=parameters.sweeps[name].setting,
                seeds=parameters.sweeps[name].seeds,
                validation_examples=_validation_examples(parameters, name),
                kinds={task: tasks[task].kind for task in parameters.sweeps[name].tasks},
                runs=values[name],
            )
            for name in parameters.wanted
        },
    )


def _wanted(parameters: Parameters) -> Iterator[SweepRun]:
    for name in parameters.wanted:
        row = parameters.sweeps[name]
        for task, value, seed in product(row.tasks, row.values, row.seeds):
            yield SweepRun(name, task, value, seed)


def _spec(parameters: Parameters, run: SweepRun, task: TaskData) -> RunSpec:
    row = parameters.sweeps[run.sweep]
    settings, distill = row.varied(parameters.methods[row.method], parameters.distill, run.value)
    optimisation = replace(
        distill.optimisation, validation_examples=_validation_examples(parameters, run.sweep)
    )
    return distilling(
        f"{run.task}-sweep-{run.sweep}-{run.seed}",
        task,
        settings,
        replace(distill, optimisation=optimisation),
        run.seed,
        examples=run.value if row.setting == STUDENT_EXAMPLES else None,
    )


def _validation_examples(parameters: Parameters, name: str) -> int | None:
    own = parameters.sweeps[name].validation_examples
    return own or parameters.distill.optimisation.validation_examples


def main(argv: list[str] | None = None) -> None:
    write_metrics("sweep", sweep(stage_parameters(Parameters, __doc__, argv)))


if __name__ == "__main__":
    run_command(main)
