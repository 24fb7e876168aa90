"""Whether training was long enough: the validation metric along a run, and its gain at the end.

Reads training logs; knows no test score and no Markdown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from skd.report.reading.experiment import ExperimentResults, MethodTraining, TaskResults
from skd.results.logs import LogRow

TOKENS = ("trained_tokens", "sampled_tokens", "teacher_tokens")  # columns of the log
# Share of a run's steps whose gain is looked at
LAST = 0.2
# Points that a finished training gains there at most
MOST_GAIN = 1.0


@dataclass(frozen=True)
class Point:
    """One validation: means over seeds of what it took, and the metric there."""

    step: int
    tokens: float
    seconds: float
    mean: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class Learning:
    """What a method still gained when its training ended."""

    task: str
    method: str
    # Points of the validation metric in the last fifth of the steps
    gain: float

    @property
    def unfinished(self) -> bool:
        return self.gain > MOST_GAIN


def points(training: MethodTraining) -> list[Point]:
    """Of the steps that every seed validated."""
    by_step: dict[int, list[LogRow]] = {}
    for row in training.log:
        if row.validation_metric is not None:
            by_step.setdefault(row.step, []).append(row)
    validated = []
    for step, rows in sorted(by_step.items()):
        if len(rows) < len(training.runs):
            continue
        metric = [row.validation_metric or 0.0 for row in rows]
        tokens = [sum(getattr(row, column) or 0 for column in TOKENS) for row in rows]
        seconds = [row.seconds or 0.0 for row in rows]
        mean_tokens, mean_seconds, mean = (fmean(v) for v in (tokens, seconds, metric))
        validated.append(Point(step, mean_tokens, mean_seconds, mean, min(metric), max(metric)))
    return validated


def learning(results: ExperimentResults, reference: str) -> list[Learning]:
    """Of the reference and of the method with the highest mean, on each task."""
    return [
        Learning(task.name, method, gain)
        for task in results.tasks
        for method in dict.fromkeys((highest(task), reference))
        if method in task.training and (gain := _gain(points(task.training[method]))) is not None
    ]


def highest(task: TaskResults) -> str:
    """The method with the highest mean of the primary metric."""
    return max(task.training, key=lambda m: fmean(task.models[m].values(task.primary)))


def _gain(course: Sequence[Point]) -> float | None:
    """In the last fifth; its beginning is read between the validations beside it."""
    if len(course) < 2:
        return None
    steps, means = [point.step for point in course], [point.mean for point in course]
    return float(means[-1] - np.interp((1 - LAST) * steps[-1], steps, means))
