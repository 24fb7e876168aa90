"""Stage `scaling`: another student for the same teacher, from its base to its distillation.

Scored on the validation split; never reads the test split. The student of `models` is not
trained again: its runs stand in `distill`.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import torch

from pipelines.params import Params
from pipelines.runs.folders import BASE
from pipelines.runs.inputs import training_task
from pipelines.runs.jobs import distilling, tuning
from pipelines.runs.placing import check, corpora, materialise, pretraining
from pipelines.runs.scratch import fingerprint, key
from pipelines.runs.training import public
from pipelines.runs.workers import count, pick_device, run_jobs
from pipelines.stages.command import run as run_stage
from pipelines.stages.item import run_item
from skd.models.loading import describe_model, load_model, load_tokenizer
from skd.models.settings import ProceduralModel
from skd.settings import plain


def scale(params: Params, name: str) -> dict[str, Any]:
    """-> the student's size and its runs: task -> method -> seed -> facts."""
    asked = params.scaling
    device = pick_device(params.runtime)
    workers = count(params.runtime, device, extra=1)
    base = _place(name, params, device)
    tasks = {task: training_task(params, task) for task in asked.tasks}
    pairs = list(product(asked.tasks, asked.seeds))
    jobs = [
        tuning(
            params,
            f"sft-{task}-{name}-{seed}",
            tasks[task],
            base,
            params.sft.student,
            seed,
            tasks[task].budget.student_examples,
            device,
        )
        for task, seed in pairs
    ]
    tuned = dict(zip(pairs, run_jobs(jobs, workers), strict=True))
    wanted = list(product(asked.tasks, asked.methods, asked.seeds))
    jobs = [
        distilling(
            params,
            f"{task}-{name}-{method}-{seed}",
            tasks[task],
            params.methods[method],
            seed,
            device,
            start=base
            if params.methods[method].student_init == "instruct"
            else Path(tuned[task, seed]["folder"]),
        )
        for task, method, seed in wanted
    ]
    runs: dict[str, dict[str, dict[str, Any]]] = {}
    for (task, method, seed), found in zip(wanted, run_jobs(jobs, workers), strict=True):
        runs.setdefault(task, {}).setdefault(method, {})[str(seed)] = public(found)
    return {
        "student": plain(asked.students[name]),
        **describe_model(load_model(base)),
        "split": "validation",
        "kinds": {task: found.kind for task, found in tasks.items()},
        "starts": {
            task: {str(seed): tuned[task, seed]["validation"] for seed in asked.seeds}
            for task in asked.tasks
        },
        "runs": runs,
    }


def _place(name: str, params: Params, device: torch.device) -> Path:
    """The untrained student in a scratch folder of its own, checked against the teacher."""
    settings, teacher = params.scaling.students[name], BASE / "teacher"
    base = Path(params.runtime.scratch) / f"student-{name}-{key(settings, fingerprint(teacher))}"
    if isinstance(settings, ProceduralModel):
        tokenizer = load_tokenizer(teacher)
        found = corpora(params.experiment.tasks)
        pretraining(base, f"base-{name}", settings, tokenizer, found, params, device)(0)
    else:
        materialise(base, f"scaling.students.{name}", settings, params, teacher)
    check(teacher, base, params)
    return base


def main(argv: list[str] | None = None) -> None:
    run_item(
        argv, scale, __doc__, argument="student", section="scaling.students", metrics="scaling"
    )


if __name__ == "__main__":
    run_stage(main)
