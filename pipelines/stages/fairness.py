"""Stage `fairness`: methods tuned alike on a task, then compared at three equal budgets.

Tuning gives every method the same number of tries (learning rates × values of one setting of its
own), and chooses on validation with the first seed. The comparison is of the chosen settings on the
test split: at equal steps, at equal tokens generated for training, by either model, and at equal
training seconds. A budget is what the most expensive method took at equal steps, so the others
train longer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from pipelines.parameters import At
from pipelines.runs.budgets import longer
from pipelines.runs.engines import run_jobs
from pipelines.runs.inputs import TaskData, training_data
from pipelines.runs.machine import Machine
from pipelines.runs.specs import distilling
from pipelines.runs.testing import TestedModel, Testing, own_split
from pipelines.runs.training import MODEL, RunSpec
from pipelines.runs.tries import Candidate, Tuned, best, candidates
from pipelines.settings.evaluate import Evaluate
from pipelines.settings.fairness import Fairness
from pipelines.settings.runtime import Runtime
from pipelines.stages.command import run_command, stage_parameters, took, write_metrics
from skd.files import write_files
from skd.models.settings import Budget
from skd.results.analyses import (
    BudgetRun,
    BudgetRuns,
    FairnessResult,
    TaskFairness,
    TuningTry,
)
from skd.results.evaluation import OutputRecord
from skd.results.files import lines_of
from skd.results.runs import TrainedRun
from skd.settings import Name, Names, label
from skd.training.settings import Distill, MethodSettings

OUT = Path("fairness")


@dataclass(frozen=True)
class Parameters:
    tasks: Annotated[Names, At("experiment.fairness")]
    budget: dict[Name, Budget]
    distill: Distill
    evaluate: Evaluate
    methods: dict[Name, MethodSettings]
    fairness: Fairness
    runtime: Runtime


@dataclass(frozen=True)
class Entry:
    """One run of the comparison: a method's chosen settings for `factor` times the steps."""

    task: str
    method: str
    factor: float
    seed: int


@dataclass(frozen=True)
class TestedRun:
    run: TrainedRun
    test: TestedModel


def fairness(parameters: Parameters) -> tuple[FairnessResult, dict[str, list[OutputRecord]]]:
    """The tries and the comparison, and the test records of the compared students by task."""
    machine = Machine.of(parameters.runtime, parameters.evaluate.batch_size)
    tasks = {name: training_data(name, parameters.budget[name]) for name in parameters.tasks}
    tuned = tune(parameters, tasks, machine)
    views = {task: tuned.factors(task) for task in tasks}
    compared = compare(parameters, tuned, tasks, entries(parameters, views), machine)
    records = {
        task: [
            replace(record, steps=tested.run.steps)
            for entry, tested in compared.items()
            if entry.task == task
            for record in tested.test.records
        ]
        for task in tasks
    }
    result = FairnessResult(
        took=took(machine.device),
        seeds=parameters.fairness.seeds,
        tasks={
            name: TaskFairness(
                kind=task.kind,
                tries=_tries(parameters, name, tuned),
                views={
                    view: {
                        method: _within_budget(parameters, compared, name, method, factor)
                        for method, factor in methods.items()
                    }
                    for view, methods in views[name].items()
                },
            )
            for name, task in tasks.items()
        },
    )
    return result, records


def tune(parameters: Parameters, tasks: Mapping[str, TaskData], machine: Machine) -> Tuned:
    """Train every try with the first seed."""
    settings = parameters.fairness
    tries = candidates(settings, parameters.tasks, parameters.methods)
    specs = [_spec(one, tasks[one.task], parameters.distill, settings.seeds[0]) for one in tries]
    runs = [tried.result for tried in run_jobs(specs, machine, extra=1)]
    return Tuned(tries, runs, best(tries, runs))


def entries(
    parameters: Parameters, views: Mapping[str, Mapping[str, Mapping[str, float]]]
) -> list[Entry]:
    """The runs of the comparison, each once: views have some in common."""
    asked = (
        Entry(task, method, factor, seed)
        for task, by_view in views.items()
        for methods in by_view.values()
        for method, factor in methods.items()
        for seed in parameters.fairness.seeds
    )
    return list(dict.fromkeys(asked))


def compare(
    parameters: Parameters,
    tuned: Tuned,
    tasks: Mapping[str, TaskData],
    asked: Sequence[Entry],
    machine: Machine,
) -> dict[Entry, TestedRun]:
    """Train and test the chosen settings."""
    splits = {task: own_split(task, parameters.budget) for task in tasks}
    specs = [
        _spec(
            tuned.tries[tuned.chosen[entry.task, entry.method]],
            tasks[entry.task],
            longer(parameters.distill, entry.factor),
            entry.seed,
        )
        for entry in asked
    ]
    trained = run_jobs(specs, machine, extra=1)
    tests = [
        Testing(
            entry.method,
            entry.seed,
            run.folder / MODEL,
            splits[entry.task],
            parameters.evaluate,
            machine.device.type,
        )
        for entry, run in zip(asked, trained, strict=True)
    ]
    tested = run_jobs(tests, machine)
    return {
        entry: TestedRun(run.result, test.result)
        for entry, run, test in zip(asked, trained, tested, strict=True)
    }


def _spec(candidate: Candidate, task: TaskData, distill: Distill, seed: int) -> RunSpec:
    name = f"{candidate.task}-fair-{candidate.method}-{seed}"
    return distilling(name, task, candidate.settings, distill, seed)


def _tries(parameters: Parameters, task: str, tuned: Tuned) -> list[TuningTry]:
    chosen = set(tuned.chosen.values())
    return [
        TuningTry(
            method=candidate.method,
            learning_rate=candidate.learning_rate,
            setting=parameters.fairness.knobs[candidate.method].setting,
            value=label(candidate.value),
            metric=run.validation.metric,
            chosen=place in chosen,
        )
        for place, (candidate, run) in enumerate(zip(tuned.tries, tuned.runs, strict=True))
        if candidate.task == task
    ]


def _within_budget(
    parameters: Parameters,
    compared: Mapping[Entry, TestedRun],
    task: str,
    method: str,
    factor: float,
) -> BudgetRuns:
    """A method's runs within one budget, one per seed."""
    seeds = parameters.fairness.seeds
    tested = {str(seed): compared[Entry(task, method, factor, seed)] for seed in seeds}
    return BudgetRuns(
        steps=longer(parameters.distill, factor).optimisation.steps,
        seeds={seed: BudgetRun(one.run, one.test.system) for seed, one in tested.items()},
    )


def main(argv: list[str] | None = None) -> None:
    result, records = fairness(stage_parameters(Parameters, __doc__, argv))
    write_files(OUT, {f"{task}.jsonl": lines_of(rows) for task, rows in records.items()})
    write_metrics("fairness", result)


if __name__ == "__main__":
    run_command(main)
