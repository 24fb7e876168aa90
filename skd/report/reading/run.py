"""A finished run as typed values: what a report is computed from. Knows no file.

`skd.report.reading.read` fills it from a result tree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skd.tasks import TASKS

TEACHER, START, INSTRUCT_START = "teacher", "student_init", "student_init_instruct"
STARTS = (TEACHER, START, INSTRUCT_START)
ALL = "all"  # the seed of a model that no experiment seed touches

Json = dict[str, Any]


@dataclass(frozen=True)
class Example:
    output: str
    scores: Mapping[str, float]


@dataclass(frozen=True)
class Model:
    """One row of the tables: a method's students, the teacher or an untrained student."""

    name: str
    system: dict[str, dict[str, float]]  # seed -> metric -> percent
    examples: dict[str, dict[str, Example]]  # seed -> example id -> output and scores
    signatures: dict[str, str]
    not_scored: dict[str, str]
    split: str
    n: int

    def values(self, metric: str) -> list[float]:
        """One value per seed; empty where the metric was not scored."""
        return [scores[metric] for scores in self.system.values() if metric in scores]

    def matrix(self, metric: str, ids: Sequence[str]) -> NDArray[np.float64]:
        """Per-example scores [seeds, examples]; NaN where an example has none."""
        return np.array(
            [
                [examples[i].scores.get(metric, np.nan) for i in ids]
                for examples in self.examples.values()
            ],
            dtype=np.float64,
        )


@dataclass(frozen=True)
class Training:
    """One method's distillation on one task."""

    method: Json  # the row of `methods`
    budget: Json
    seeds: dict[str, Json]
    log: list[dict[str, str]]  # rows of logs/distill/<method>/<task>.csv


@dataclass(frozen=True)
class TaskRun:
    name: str  # the row of `data`
    kind: str  # a name of `skd.tasks.TASKS`
    card: Json
    rows: list[Json]  # of the evaluated split
    models: dict[str, Model]  # teacher, untrained students, then the methods in order
    training: dict[str, Training]  # by method

    @property
    def primary(self) -> str:
        return TASKS[self.kind].primary

    @property
    def metrics(self) -> list[str]:
        """The task's metrics that were scored at least once, in the task's order."""
        scored = {m for model in self.models.values() for s in model.system.values() for m in s}
        return [metric for metric in TASKS[self.kind].metrics if metric in scored]

    @property
    def ids(self) -> list[str]:
        return [str(row["id"]) for row in self.rows]

    def scores(self, model: str) -> NDArray[np.float64]:
        """Per-example scores [seeds, examples] of a model by the primary metric."""
        return self.models[model].matrix(self.primary, self.ids)


@dataclass(frozen=True)
class Run:
    base: Json
    tasks: list[TaskRun]
    methods: list[str]
    seeds: list[int]
    # The tasks' models on other sets: each with the set's rows and scores, and its task's training.
    test_sets: list[TaskRun] = field(default_factory=list)
