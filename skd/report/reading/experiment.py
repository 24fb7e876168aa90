"""A finished experiment as typed values: what a report is computed from. Knows no file.

`skd.report.reading.reader` fills it from a result tree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from skd.data.record import ExampleRow
from skd.results.data import DataCard
from skd.results.evaluation import OutputRecord
from skd.results.logs import LogRow
from skd.results.pair import PairResult
from skd.results.runs import RunBudget, Seeds
from skd.tasks import TASKS
from skd.training.methods import METHODS, Method
from skd.training.settings import MethodSettings

Floats = NDArray[np.float64]

# The models that no method made, as rows of the tables
TEACHER_ROW, SFT_START, INSTRUCT_START = "teacher", "student_init", "student_init_instruct"
STARTS = (TEACHER_ROW, SFT_START, INSTRUCT_START)


@dataclass(frozen=True)
class ModelScores:
    """One row of the tables: a method's students, the teacher or an untrained student."""

    name: str
    # Seed or `ALL_SEEDS` -> metric -> percent, over the whole split
    by_seed: Mapping[str, Mapping[str, float]]
    # Seed or `ALL_SEEDS` -> id of the row -> output and its scores
    outputs: Mapping[str, Mapping[str, OutputRecord]]
    # Metric -> library, version, settings
    signatures: Mapping[str, str]
    # Metric -> why
    not_scored: Mapping[str, str]
    split: str
    # Rows of the split
    n: int

    def values(self, metric: str) -> list[float]:
        """One value per seed; empty where the metric was not scored."""
        return [scores[metric] for scores in self.by_seed.values() if metric in scores]

    def by_example(self, metric: str, ids: Sequence[str]) -> dict[str, Floats]:
        """Seed -> score of each example; NaN where an example has none."""
        return {
            seed: np.array([outputs[i].scores.get(metric) for i in ids], dtype=np.float64)
            for seed, outputs in self.outputs.items()
        }


@dataclass(frozen=True)
class MethodTraining:
    """The training of one method's students on one task."""

    # Its row of `methods`
    settings: MethodSettings
    budget: RunBudget
    runs: Seeds
    log: Sequence[LogRow]

    @property
    def method(self) -> Method:
        return METHODS[self.settings.method]


@dataclass(frozen=True)
class TaskResults:
    """A task with the models that were trained and tested on it."""

    # The row of `data`
    name: str
    # A name of `skd.tasks.TASKS`
    kind: str
    card: DataCard
    # Of the tested split
    rows: Sequence[ExampleRow]
    # Teacher, untrained students, then the methods in order
    models: Mapping[str, ModelScores]
    # By method
    training: Mapping[str, MethodTraining]

    @property
    def primary(self) -> str:
        return TASKS[self.kind].primary

    @property
    def metrics(self) -> list[str]:
        """The task's metrics that were scored at least once, in the task's order."""
        scored = {m for model in self.models.values() for s in model.by_seed.values() for m in s}
        return [metric for metric in TASKS[self.kind].metrics if metric in scored]

    @property
    def ids(self) -> list[str]:
        return [str(row["id"]) for row in self.rows]

    def scores(self, model: str, metric: str | None = None) -> dict[str, Floats]:
        """Seed -> score of each example, by the primary metric if no other is named."""
        return self.models[model].by_example(metric or self.primary, self.ids)


@dataclass(frozen=True)
class ExperimentResults:
    pair: PairResult
    tasks: Sequence[TaskResults]
    # Rows of `methods`, in order
    methods: Sequence[str]
    seeds: Sequence[int]
    # The tasks' models on other sets: each with the set's rows and scores, and its task's training
    test_sets: Sequence[TaskResults] = field(default_factory=list)
