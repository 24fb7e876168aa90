"""Stage `fairness`: methods tuned alike on a task, then compared at three equal budgets.

Tuning: the same number of tries for each method (learning rates × values of one setting of its
own), chosen on validation with the first seed. Comparison: the chosen settings on the test
split, at equal steps, at equal tokens generated while training and at equal training seconds.
A budget is what the most expensive method took at equal steps, so the others train longer.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch

from pipelines.params import Params, load
from pipelines.runs.inputs import training_task
from pipelines.runs.jobs import Job, distilling
from pipelines.runs.training import public
from pipelines.runs.workers import count, pick_device, run_jobs
from pipelines.stages.command import run as run_stage
from pipelines.stages.command import write_metrics
from pipelines.stages.evaluate import Subject, TestSplit, own_split, tested
from skd.files import jsonl, write_files
from skd.settings import label
from skd.training.settings import Distill, MethodSettings

OUT = Path("fairness")
LONGEST = 10  # times the steps of `distill`: a bound for methods that take next to nothing
STEPS = "steps"
BUDGETS: dict[str, Callable[[Mapping[str, Any]], float]] = {  # view -> what a run took of it
    "tokens": lambda facts: facts["student_sampled_tokens"],
    "seconds": lambda facts: facts["training_seconds"],
}


@dataclass(frozen=True)
class Try:
    """Settings of a method, and what was chosen to make them."""

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


def tries(params: Params) -> list[Try]:
    found = []
    for task, (method, knob) in product(params.experiment.fairness, params.fairness.knobs.items()):
        for rate, value in product(params.fairness.learning_rates, knob.values):
            settings = params.changed(method, {knob.setting: value, "learning_rate": rate})
            found.append(Try(task, method, rate, value, settings))
    return found


def longer(distill: Distill, factor: float) -> Distill:
    """The same run with more steps, validated as often in all."""
    old = distill.optimisation
    every = old.validate_every and round(old.validate_every * factor)
    new = replace(old, steps=round(old.steps * factor), validate_every=every)
    return replace(distill, optimisation=new)


def factors(taken: Mapping[str, Mapping[str, Any]], view: str) -> dict[str, float]:
    """Method -> how many times its steps fit into the view's budget.

    1 for methods that take none of it: ground truth needs no generated tokens.
    """
    if view == STEPS:
        return dict.fromkeys(taken, 1.0)
    cost = {method: BUDGETS[view](facts) for method, facts in taken.items()}
    budget = max(cost.values())
    return {m: min(LONGEST, budget / own) if own else 1.0 for m, own in cost.items()}


def fairness(params: Params) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """-> each task's facts of tries and views, and the test records of the compared students."""
    device = pick_device(params.runtime)
    workers = count(params.runtime, device, extra=1)
    tasks = {name: training_task(params, name) for name in params.experiment.fairness}
    tried, seeds = tries(params), params.fairness.seeds

    def training(one: Try, distill: Distill, seed: int) -> Job:
        title, task = f"{one.task}-fair-{one.method}-{seed}", tasks[one.task]
        return distilling(params, title, task, one.settings, seed, device, distill=distill)

    facts = run_jobs([training(one, params.distill, seeds[0]) for one in tried], workers)
    chosen = best(tried, facts)
    views: dict[str, dict[str, dict[str, float]]] = {}
    for task in tasks:
        taken = {m: facts[chosen[task, m]] for m in params.fairness.knobs}
        views[task] = {view: factors(taken, view) for view in (STEPS, *BUDGETS)}
    wanted = list(
        dict.fromkeys(
            Entry(task, method, factor, seed)
            for task, by_view in views.items()
            for methods in by_view.values()
            for method, factor in methods.items()
            for seed in seeds
        )
    )
    splits = {task: own_split(params, task) for task in tasks}

    def job(entry: Entry) -> Job:
        distill = longer(params.distill, entry.factor)
        run = training(tried[chosen[entry.task, entry.method]], distill, entry.seed)
        return _then_test(params, run, entry, splits[entry.task], device)

    made = run_jobs([job(entry) for entry in wanted], workers)
    runs = dict(zip(wanted, made, strict=True))
    records = {
        task: [row for entry in wanted if entry.task == task for row in runs[entry]["records"]]
        for task in tasks
    }
    return {
        "split": "test",
        "seeds": seeds,
        "tasks": {
            name: {
                "kind": task.kind,
                "tries": _tries(params, name, tried, facts, set(chosen.values())),
                "views": {
                    view: {
                        method: _compared(params, runs, [Entry(name, method, f, s) for s in seeds])
                        for method, f in methods.items()
                    }
                    for view, methods in views[name].items()
                },
            }
            for name, task in tasks.items()
        },
    }, records


def best(tried: list[Try], facts: list[dict[str, Any]]) -> dict[tuple[str, str], int]:
    """(task, method) -> the place of its best try on validation; the earlier of equals."""
    chosen: dict[tuple[str, str], int] = {}
    for place, one in enumerate(tried):
        key = (one.task, one.method)
        metric = facts[place]["validation"]["metric"]
        if key not in chosen or metric > facts[chosen[key]]["validation"]["metric"]:
            chosen[key] = place
    return chosen


def _then_test(
    params: Params, run: Job, entry: Entry, split: TestSplit, device: torch.device
) -> Job:
    def job(line: int) -> dict[str, Any]:
        facts = run(line)
        subject = Subject(entry.task, entry.method, entry.seed, Path(facts["folder"]))
        result = tested(params, split, subject, device)(line)
        rows = [{**row, "steps": facts["steps"]} for row in result["records"]]
        return {**public(facts), "test": result["system"], "records": rows}

    return job


def _tries(
    params: Params, task: str, tried: list[Try], facts: list[dict[str, Any]], chosen: set[int]
) -> list[dict[str, Any]]:
    return [
        {
            "method": one.method,
            "learning_rate": one.learning_rate,
            "setting": params.fairness.knobs[one.method].setting,
            "value": label(one.value),
            "metric": facts[place]["validation"]["metric"],
            "chosen": place in chosen,
        }
        for place, one in enumerate(tried)
        if one.task == task
    ]


def _compared(
    params: Params, runs: Mapping[Entry, dict[str, Any]], entries: list[Entry]
) -> dict[str, Any]:
    return {
        "steps": longer(params.distill, entries[0].factor).optimisation.steps,
        "seeds": {
            str(entry.seed): {k: v for k, v in runs[entry].items() if k != "records"}
            for entry in entries
        },
    }


def main(argv: list[str] | None = None) -> None:
    argparse.ArgumentParser(description=__doc__).parse_args(argv)
    params = load()
    facts, records = fairness(params)
    write_files(OUT, {f"{task}.jsonl": jsonl(rows) for task, rows in records.items()})
    write_metrics("fairness", pick_device(params.runtime), facts)


if __name__ == "__main__":
    run_stage(main)
