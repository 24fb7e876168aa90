"""Stage `fairness`: methods tuned alike on a task, then compared at three equal budgets.

Tuning gives every method the same number of tries (learning rates × values of one setting of its
own), and chooses on validation with the first seed. The comparison is of the chosen settings on the
test split: at equal steps, at equal tokens generated for training, by either model, and at equal
training seconds. A budget is what the most expensive method took at equal steps, so the others
train longer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any

from pipelines.parameters import At
from pipelines.runs.engines import run_jobs
from pipelines.runs.inputs import TaskData, training_data
from pipelines.runs.machine import Machine
from pipelines.runs.specs import distilling
from pipelines.runs.testing import TestedModel, Testing, own_split
from pipelines.runs.training import MODEL, RunSpec
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
from skd.training.settings import Distill, MethodSettings, changed

OUT = Path("fairness")
LONGEST = 10  # times the steps of `distill`: a bound for methods that take next to nothing
STEPS = "steps"


@dataclass(frozen=True)
class Spent:
    """What a run took of a budget."""

    # All of it
    whole: float
    # The part that was taken before the first step
    once: float

    def fits(self, budget: float) -> float:
        """How many times its steps fit into a budget; 1 where more steps take no more of it."""
        by_steps = self.whole - self.once
        return (budget - self.once) / by_steps if by_steps > 0 else 1.0


# Budget that is held equal -> what a run took of it
BUDGETS: dict[str, Callable[[TrainedRun], Spent]] = {
    "tokens": lambda run: Spent(run.generated_tokens, run.preparation.teacher_sampled_tokens),
    "seconds": lambda run: Spent(run.cost.training_seconds, run.preparation.seconds),
}


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
class Candidate:
    """Settings of a method on a task, and what was chosen to make them."""

    task: str
    method: str
    learning_rate: float
    value: Any
    settings: MethodSettings


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


def candidates(parameters: Parameters) -> list[Candidate]:
    settings = parameters.fairness
    tries = []
    for task, (method, knob) in product(parameters.tasks, settings.knobs.items()):
        for rate, value in product(settings.learning_rates, knob.values):
            changes = {knob.setting: value, "learning_rate": rate}
            row = changed(parameters.methods[method], changes, f"methods.{method}")
            tries.append(Candidate(task, method, rate, value, row))
    return tries


def longer(distill: Distill, factor: float) -> Distill:
    """The same run with more steps, validated as often in all."""
    old = distill.optimisation
    every = old.validate_every and round(old.validate_every * factor)
    new = replace(old, steps=round(old.steps * factor), validate_every=every)
    return replace(distill, optimisation=new)


def factors(taken: Mapping[str, TrainedRun], view: str) -> dict[str, float]:
    """Method -> how many times its steps fit into the view's budget.

    What a method took once is not taken again by more steps: the teacher's own responses are made
    for a run's prompts, however often it trains on them.
    """
    if view == STEPS:
        return dict.fromkeys(taken, 1.0)
    spent = {method: BUDGETS[view](run) for method, run in taken.items()}
    budget = max(own.whole for own in spent.values())
    return {method: min(LONGEST, own.fits(budget)) for method, own in spent.items()}


def fairness(parameters: Parameters) -> tuple[FairnessResult, dict[str, list[OutputRecord]]]:
    """The tries and the comparison, and the test records of the compared students by task."""
    machine = Machine.of(parameters.runtime, parameters.evaluate.batch_size)
    tasks = {name: training_data(name, parameters.budget[name]) for name in parameters.tasks}
    tries, seeds = candidates(parameters), parameters.fairness.seeds
    first = [_spec(one, tasks[one.task], parameters.distill, seeds[0]) for one in tries]
    runs = [tried.result for tried in run_jobs(first, machine, extra=1)]
    chosen = best(tries, runs)
    views: dict[str, dict[str, dict[str, float]]] = {}
    for task in tasks:
        taken = {method: runs[chosen[task, method]] for method in parameters.fairness.knobs}
        views[task] = {view: factors(taken, view) for view in (STEPS, *BUDGETS)}
    entries = list(
        dict.fromkeys(
            Entry(task, method, factor, seed)
            for task, by_view in views.items()
            for methods in by_view.values()
            for method, factor in methods.items()
            for seed in seeds
        )
    )
    splits = {task: own_split(task, parameters.budget) for task in tasks}

    specs = [
        _spec(
            tries[chosen[entry.task, entry.method]],
            tasks[entry.task],
            longer(parameters.distill, entry.factor),
            entry.seed,
        )
        for entry in entries
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
        for entry, run in zip(entries, trained, strict=True)
    ]
    results = {
        entry: TestedRun(run.result, test.result)
        for entry, run, test in zip(entries, trained, run_jobs(tests, machine), strict=True)
    }
    records = {
        task: [
            replace(record, steps=results[entry].run.steps)
            for entry in entries
            if entry.task == task
            for record in results[entry].test.records
        ]
        for task in tasks
    }
    return (
        FairnessResult(
            took=took(machine.device),
            seeds=seeds,
            tasks={
                name: TaskFairness(
                    kind=task.kind,
                    tries=_tries(parameters, name, tries, runs, set(chosen.values())),
                    views={
                        view: {
                            method: _within_budget(
                                results,
                                [Entry(name, method, factor, seed) for seed in seeds],
                                parameters.distill,
                            )
                            for method, factor in methods.items()
                        }
                        for view, methods in views[name].items()
                    },
                )
                for name, task in tasks.items()
            },
        ),
        records,
    )


def best(tries: list[Candidate], runs: list[TrainedRun]) -> dict[tuple[str, str], int]:
    """(task, method) -> the place of its best try on validation; of equals the earlier."""
    chosen: dict[tuple[str, str], int] = {}
    for place, candidate in enumerate(tries):
        key = (candidate.task, candidate.method)
        metric = runs[place].validation.metric
        if key not in chosen or metric > runs[chosen[key]].validation.metric:
            chosen[key] = place
    return chosen


def _spec(candidate: Candidate, task: TaskData, distill: Distill, seed: int) -> RunSpec:
    name = f"{candidate.task}-fair-{candidate.method}-{seed}"
    return distilling(name, task, candidate.settings, distill, seed)


def _tries(
    parameters: Parameters,
    task: str,
    tries: list[Candidate],
    runs: list[TrainedRun],
    chosen: set[int],
) -> list[TuningTry]:
    return [
        TuningTry(
            method=candidate.method,
            learning_rate=candidate.learning_rate,
            setting=parameters.fairness.knobs[candidate.method].setting,
            value=label(candidate.value),
            metric=runs[place].validation.metric,
            chosen=place in chosen,
        )
        for place, candidate in enumerate(tries)
        if candidate.task == task
    ]


def _within_budget(
    results: Mapping[Entry, TestedRun], entries: list[Entry], distill: Distill
) -> BudgetRuns:
    """A method's runs within one budget, one per seed."""
    tested = {str(entry.seed): results[entry] for entry in entries}
    return BudgetRuns(
        steps=longer(distill, entries[0].factor).optimisation.steps,
        seeds={seed: BudgetRun(one.run, one.test.system) for seed, one in tested.items()},
    )


def main(argv: list[str] | None = None) -> None:
    result, records = fairness(stage_parameters(Parameters, __doc__, argv))
    write_files(OUT, {f"{task}.jsonl": lines_of(rows) for task, rows in records.items()})
    write_metrics("fairness", result)


if __name__ == "__main__":
    run_command(main)
