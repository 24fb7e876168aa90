"""How fast methods get better: the validation metric over steps, tokens and seconds of training.

Draws on a figure and gives back the rows it drew; knows no file.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure

from skd.report.figures.curves import DASHES, PALETTE, DrawnRow, digits
from skd.report.reading.experiment import ExperimentResults, MethodTraining, TaskResults
from skd.report.sections.tables import TITLES
from skd.results.logs import LogRow

TOKENS = ("trained_tokens", "sampled_tokens", "teacher_tokens")  # columns of the log
AXES = {  # of a point -> what stands under the axis
    "step": "optimiser step",
    "tokens": "tokens through either model",
    "seconds": "seconds of training, validation apart",
}
BLACK: dict[str, Any] = {"color": "black", "linewidth": 2.2, "zorder": 3}
COLUMNS = ("task", "method", *AXES, "mean", "lowest", "highest")


@dataclass(frozen=True)
class Point:
    """One validation: means over seeds of what it took, and the metric there."""

    step: int
    tokens: float
    seconds: float
    mean: float
    lowest: float
    highest: float


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


def convergence(
    results: ExperimentResults, groups: dict[str, list[str]], reference: str
) -> tuple[Figure, list[DrawnRow]]:
    """A row of panels per task, an axis each. Dashes tell groups apart, colours methods."""
    figure = Figure(figsize=(11.5, 0.8 + 2.5 * len(results.tasks)), layout="constrained")
    grid = figure.subplots(len(results.tasks), len(AXES), sharey="row", squeeze=False)
    rows: list[DrawnRow] = []
    for line, task in zip(grid, results.tasks, strict=True):
        lines = {method: points(training) for method, training in task.training.items()}
        for axes, (axis, label) in zip(line, AXES.items(), strict=True):
            for dash, methods in zip(cycle(DASHES), groups.values(), strict=False):
                for color, method in zip(PALETTE, methods, strict=False):
                    places = [getattr(point, axis) for point in lines[method]]
                    means = [point.mean for point in lines[method]]
                    shown = {"color": color} if method != reference else BLACK
                    axes.plot(places, means, dash, marker="o", markersize=3, label=method, **shown)
            axes.set_xlabel(label)
        line[0].set_ylabel(f"{task.name}\nvalidation {TITLES[task.primary]}")
        rows += _rows(task, lines)
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=8)
    return figure, rows


def _rows(task: TaskResults, lines: dict[str, list[Point]]) -> list[DrawnRow]:
    return [
        (
            task.name,
            method,
            point.step,
            *map(digits, (point.tokens, point.seconds, point.mean, point.lowest, point.highest)),
        )
        for method, line in lines.items()
        for point in line
    ]
