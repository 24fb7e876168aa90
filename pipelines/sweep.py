"""Stage `sweep`: one method trained for each value of one setting, scored on validation.

The runs share scratch with `distill`, so a value that a method already has trains nothing new
where the validation rows agree. Never reads the test split.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

from pipelines.inputs import training_task
from pipelines.item import run_item
from pipelines.jobs import distilling
from pipelines.stage import run as run_stage
from pipelines.training import public
from pipelines.workers import count, pick_device, run_jobs
from skd.config import Params, label, plain

EXAMPLES = "student_examples"  # the one setting that is not in a row of `methods`


def sweep(params: Params, name: str) -> dict[str, Any]:
    """-> the facts of every run: tasks -> value -> seed."""
    asked, device = params.sweeps[name], pick_device(params.runtime)
    optimisation = replace(
        params.distill.optimisation, validation_examples=asked.validation_examples
    )
    distill = replace(params.distill, optimisation=optimisation)
    tasks = {task: training_task(params, task) for task in asked.tasks}
    wanted = list(product(asked.tasks, asked.values, asked.seeds))
    jobs = [
        distilling(
            params,
            f"{task}-sweep-{name}-{seed}",
            tasks[task],
            params.vary(asked, value),
            seed,
            device,
            distill=distill,
            examples=value if asked.setting == EXAMPLES else None,
        )
        for task, value, seed in wanted
    ]
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for (task, value, seed), facts in zip(
        wanted, run_jobs(jobs, count(params.runtime, device)), strict=True
    ):
        found.setdefault(task, {}).setdefault(label(value), {})[str(seed)] = public(facts)
    kinds = {name: task.kind for name, task in tasks.items()}
    return {**plain(asked), "split": "validation", "kinds": kinds, "runs": found}


def main(argv: list[str] | None = None) -> None:
    run_item(argv, sweep, __doc__, argument="name", section="sweeps", metrics="sweeps")


if __name__ == "__main__":
    run_stage(main)
