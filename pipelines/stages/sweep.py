"""Stage `sweep`: a method trained for each value of one setting, scored on validation.

One stage for all rows of `sweeps` that run, because importing the libraries takes longer than a
small run. The runs share scratch with each other and with `distill`, so a value that a method
already has trains nothing new where the validation rows agree. Never reads the test split.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import torch

from pipelines.params import Params, load
from pipelines.runs.inputs import Task, training_task
from pipelines.runs.jobs import Job, distilling
from pipelines.runs.training import public
from pipelines.runs.workers import count, pick_device, run_jobs
from pipelines.stages.command import run as run_stage
from pipelines.stages.command import write_metrics
from skd.settings import label, plain

EXAMPLES = "student_examples"  # the one setting that is not in a row of `methods`


@dataclass(frozen=True)
class Setting:
    """One run: a value of a sweep on a task with a seed."""

    sweep: str
    task: str
    value: Any
    seed: int


def sweep(params: Params) -> dict[str, Any]:
    """-> each sweep's parameters and the facts of its runs: task -> value -> seed."""
    device = pick_device(params.runtime)
    wanted = list(_settings(params))
    tasks = {name: training_task(params, name) for name in {one.task for one in wanted}}
    jobs = [_job(params, one, tasks[one.task], device) for one in wanted]
    results = run_jobs(jobs, count(params.runtime, device, extra=1))
    found: dict[str, Any] = {
        name: {
            **plain(params.sweeps[name]),
            "validation_examples": _validation_examples(params, name),
            "split": "validation",
            "kinds": {task: tasks[task].kind for task in params.sweeps[name].tasks},
            "runs": {},
        }
        for name in params.experiment.sweeps
    }
    for one, facts in zip(wanted, results, strict=True):
        values = found[one.sweep]["runs"].setdefault(one.task, {})
        values.setdefault(label(one.value), {})[str(one.seed)] = public(facts)
    return found


def _settings(params: Params) -> Iterator[Setting]:
    for name in params.experiment.sweeps:
        asked = params.sweeps[name]
        for task, value, seed in product(asked.tasks, asked.values, asked.seeds):
            yield Setting(name, task, value, seed)


def _job(params: Params, one: Setting, task: Task, device: torch.device) -> Job:
    asked = params.sweeps[one.sweep]
    optimisation = replace(
        params.distill.optimisation, validation_examples=_validation_examples(params, one.sweep)
    )
    return distilling(
        params,
        f"{one.task}-sweep-{one.sweep}-{one.seed}",
        task,
        params.vary(asked, one.value),
        one.seed,
        device,
        distill=replace(params.distill, optimisation=optimisation),
        examples=one.value if asked.setting == EXAMPLES else None,
    )


def _validation_examples(params: Params, name: str) -> int | None:
    asked = params.sweeps[name].validation_examples
    return asked or params.distill.optimisation.validation_examples


def main(argv: list[str] | None = None) -> None:
    argparse.ArgumentParser(description=__doc__).parse_args(argv)
    params = load()
    write_metrics("sweep", pick_device(params.runtime), {"sweeps": sweep(params)})


if __name__ == "__main__":
    run_stage(main)
