"""The training runs that stages ask for, as jobs of `pipelines.runs.workers`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pipelines.params import Params
from pipelines.runs import folders
from pipelines.runs.inputs import Task
from pipelines.runs.training import Spec, subset, train_run
from skd.training.settings import Distill, MethodSettings, Optimisation

Job = Callable[[int], dict[str, Any]]  # line of its progress bar -> facts of `train_run`


def tuning(
    params: Params,
    name: str,
    task: Task,
    start: Path,
    optimisation: Optimisation,
    seed: int,
    examples: int | None,
    device: torch.device,
) -> Job:
    """Supervised fine-tuning of the model at `start`; `examples`: rows it sees, None: all."""
    spec = Spec(
        name=name,
        settings=MethodSettings(method="sft"),
        distill=Distill(optimisation=optimisation),
        start=start,
        teacher=None,
        seed=seed,
    )
    rows = subset(task.train, examples, seed)
    return lambda line: train_run(params, spec, task, rows, device, line)


def distilling(
    params: Params,
    name: str,
    task: Task,
    settings: MethodSettings,
    seed: int,
    device: torch.device,
    *,
    distill: Distill | None = None,
    start: Path | None = None,
    examples: int | None = None,
) -> Job:
    """A method's run on a task; what is not given is what `params` says of it."""
    spec = Spec(
        name=name,
        settings=settings,
        distill=distill or params.distill,
        start=start or folders.start(task.name, seed, settings.student_init),
        teacher=folders.teacher(task.name),
        seed=seed,
    )
    rows = subset(task.train, examples or task.budget.student_examples, seed)
    return lambda line: train_run(params, spec, task, rows, device, line)
