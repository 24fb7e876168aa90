"""Figures as PNG bytes, each with the numbers it shows as CSV. Knows no statistics of its own."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from skd.report.figures.convergence import COLUMNS as CONVERGENCE_COLUMNS
from skd.report.figures.convergence import convergence, points
from skd.report.figures.curves import (
    ACCEPTANCE_COLUMNS,
    CURVE_COLUMNS,
    PALETTE,
    DrawnRow,
    acceptance,
    curves,
    digits,
    line_styles,
    measured,
    panel_groups,
)
from skd.report.reading.experiment import SFT_START, TEACHER_ROW, ExperimentResults, TaskResults
from skd.report.sections.sheets import csv_text
from skd.report.sections.tables import TITLES
from skd.report.verdicts.statistics import seed_interval

STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.titlesize": 10,
    "legend.frameon": False,
    "figure.dpi": 130,
}
FAR = 0.5  # of the width that the methods take
COMPARISON_COLUMNS = ("task", "metric", "model", "mean", "half_width")  # then a column per seed


@dataclass(frozen=True)
class Drawn:
    png: bytes
    # Every number that was drawn
    csv: str


def figures(results: ExperimentResults, reference: str) -> dict[str, Drawn]:
    """By name, without a suffix. A figure without any data is left out."""
    groups = panel_groups(results.tasks[0])
    styles = line_styles(groups, reference)
    with mpl.rc_context(STYLE):
        columns = (*COMPARISON_COLUMNS, *(f"seed_{seed}" for seed in results.seeds))
        drawn = {"comparison": _drawn(columns, *_comparison(results, reference))}
        for task in results.tasks:
            name = f"curves-{task.name}"
            drawn[name] = _drawn(CURVE_COLUMNS, *curves(task, groups, styles))
        if any(points(t) for task in results.tasks for t in task.training.values()):
            drawn["convergence"] = _drawn(
                CONVERGENCE_COLUMNS, *convergence(results, groups, reference)
            )
        if interleaved := [m for m in results.methods if measured(results.tasks[0], m)]:
            drawn["acceptance"] = _drawn(
                ACCEPTANCE_COLUMNS, *acceptance(results, interleaved, styles)
            )
    return drawn


def files(drawn: dict[str, Drawn]) -> dict[str, str | bytes]:
    """A PNG and a CSV of each figure."""
    pictures = {f"{name}.png": figure.png for name, figure in drawn.items()}
    return pictures | {f"{name}.csv": figure.csv for name, figure in drawn.items()}


def _comparison(results: ExperimentResults, reference: str) -> tuple[Figure, list[DrawnRow]]:
    """Primary metric per method with its interval over seeds; best mean on top."""
    height = 1.1 + 0.25 * len(results.methods)
    figure = Figure(figsize=(4.0 * len(results.tasks) + 0.6, height), layout="constrained")
    grid = figure.subplots(1, len(results.tasks), squeeze=False)[0]
    rows: list[DrawnRow] = []
    for axes, task in zip(grid, results.tasks, strict=True):
        intervals = {m: seed_interval(task.models[m].values(task.primary)) for m in results.methods}
        order = sorted(results.methods, key=lambda m: intervals[m].mean)
        for place, method in enumerate(order):
            interval = intervals[method]
            color = "black" if method == reference else PALETTE[0]
            values = task.models[method].values(task.primary)
            axes.plot(values, [place] * len(values), "|", color=color, alpha=0.45, markersize=7)
            axes.errorbar(
                interval.mean, place, xerr=interval.half_width, fmt="o", color=color, markersize=5,
                capsize=2.5, linewidth=1.4,
            )  # fmt: skip
            half_width = "" if interval.half_width is None else digits(interval.half_width)
            numbers = (digits(interval.mean), half_width, *map(digits, values))
            rows.append((task.name, task.primary, method, *numbers))
        axes.set_yticks(range(len(order)), order)
        for label in axes.get_yticklabels():
            label.set_fontweight("bold" if label.get_text() == reference else "normal")
        rows += _references(axes, task)
        axes.set_title(task.name)
        axes.set_xlabel(TITLES[task.primary])
    drawn = [axes.get_legend_handles_labels() for axes in grid]
    handles = {label: line for both in drawn for line, label in zip(*both, strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2)
    return figure, rows


def _references(axes: Any, task: TaskResults) -> Iterator[DrawnRow]:
    """Lines of teacher and start; one far from all methods is told in words.

    Drawn to scale, a teacher at 95 would squeeze methods between 1 and 8 into one heap.
    """
    low, high = axes.get_xlim()
    reach = FAR * (high - low)
    lines: Iterable[tuple[str, str, str]] = (
        (TEACHER_ROW, "teacher", "--"),
        (SFT_START, "untrained student (SFT start)", ":"),
    )
    for name, label, style in lines:
        mean = seed_interval(task.models[name].values(task.primary)).mean
        if low - reach <= mean <= high + reach:
            axes.axvline(mean, color="#777777", linestyle=style, linewidth=1.3, label=label)
        else:
            text = f"{label} {mean:.1f} →" if mean > high else f"← {label} {mean:.1f}"
            # Below on the right: the best mean is on top, so the right is free there.
            axes.text(
                0.99, 0.02, text, transform=axes.transAxes, ha="right", va="bottom",
                color="#555555", fontsize=8,
            )  # fmt: skip
        yield task.name, task.primary, name, digits(mean)


def _drawn(columns: Sequence[str], figure: Figure, rows: list[DrawnRow]) -> Drawn:
    data = io.BytesIO()
    # no software version in the file: equal numbers give equal bytes
    figure.savefig(data, format="png", metadata={"Software": None})
    whole = [(*row, *[""] * (len(columns) - len(row))) for row in rows]
    return Drawn(data.getvalue(), csv_text(columns, whole))
