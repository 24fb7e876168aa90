"""Training runs as stages ask for them: which rows, which folders, which settings.

Knows tasks, methods and folders. Refuses to know stages and how a run is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from pipelines.runs import folders
from pipelines.runs.inputs import TaskData
from pipelines.runs.training import RunSpec
from skd.data.record import ExampleRow
from skd.engine.seeding import generator
from skd.training.settings import Distill, MethodSettings, Optimisation


def tuning(
    name: str,
    task: TaskData,
    start_folder: Path,
    optimisation: Optimisation,
    seed: int,
    examples: int | None = None,
) -> RunSpec:
    """Supervised fine-tuning of a model on a task. `examples`: rows that it sees; None: all."""
    return RunSpec(
        name=name,
        task=replace(task, train=subset(task.train, examples, seed)),
        settings=MethodSettings(method="sft"),
        distill=Distill(optimisation=optimisation),
        start_folder=start_folder,
        teacher_folder=None,
        seed=seed,
    )


def distilling(
    name: str,
    task: TaskData,
    settings: MethodSettings,
    distill: Distill,
    seed: int,
    *,
    start_folder: Path | None = None,
    examples: int | None = None,
) -> RunSpec:
    """A method's run on a task.

    Args:
        start_folder: the student's; None: the one that `settings.student_init` names.
        examples: rows that the student sees; None: the task's `student_examples`.
    """
    rows = subset(task.train, examples or task.budget.student_examples, seed)
    return RunSpec(
        name=name,
        task=replace(task, train=rows),
        settings=settings,
        distill=distill,
        start_folder=start_folder or folders.start(task.name, seed, settings.student_init),
        teacher_folder=folders.teacher(task.name),
        seed=seed,
    )


def subset(rows: Sequence[ExampleRow], size: int | None, seed: int) -> list[ExampleRow]:
    """The rows that a student may see, drawn by the run's seed; all of them if size is None."""
    order = torch.randperm(len(rows), generator=generator(seed, "subset")).tolist()
    return [rows[place] for place in order[:size]]
