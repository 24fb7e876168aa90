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
    Row,
    acceptance,
    curves,
    digits,
    line_styles,
    measured,
    panel_groups,
)
from skd.report.reading.run import START, TEACHER, Run, TaskRun
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
    csv: str  # every number that was drawn


def figures(run: Run, reference: str) -> dict[str, Drawn]:
    """By name, without a suffix. A figure without any data is left out."""
    groups = panel_groups(run.tasks[0])
    styles = line_styles(groups, reference)
    with mpl.rc_context(STYLE):
        columns = (*COMPARISON_COLUMNS, *(f"seed_{seed}" for seed in run.seeds))
        drawn = {"comparison": _drawn(columns, *_comparison(run, reference))}
        for task in run.tasks:
            name = f"curves-{task.name}"
            drawn[name] = _drawn(CURVE_COLUMNS, *curves(task, groups, styles))
        if any(points(t) for task in run.tasks for t in task.training.values()):
            drawn["convergence"] = _drawn(CONVERGENCE_COLUMNS, *convergence(run, groups, reference))
        if interleaved := [m for m in run.methods if measured(run.tasks[0], m)]:
            drawn["acceptance"] = _drawn(ACCEPTANCE_COLUMNS, *acceptance(run, interleaved, styles))
    return drawn


def files(drawn: dict[str, Drawn]) -> dict[str, str | bytes]:
    """A PNG and a CSV of each figure."""
    pictures = {f"{name}.png": figure.png for name, figure in drawn.items()}
    return pictures | {f"{name}.csv": figure.csv for name, figure in drawn.items()}


def _comparison(run: Run, reference: str) -> tuple[Figure, list[Row]]:
    """Primary metric per method with its interval over seeds; best mean on top."""
    height = 1.1 + 0.25 * len(run.methods)
    figure = Figure(figsize=(4.0 * len(run.tasks) + 0.6, height), layout="constrained")
    grid = figure.subplots(1, len(run.tasks), squeeze=False)[0]
    rows: list[Row] = []
    for axes, task in zip(grid, run.tasks, strict=True):
        intervals = {m: seed_interval(task.models[m].values(task.primary)) for m in run.methods}
        order = sorted(run.methods, key=lambda m: intervals[m].mean)
        for place, method in enumerate(order):
            found = intervals[method]
            color = "black" if method == reference else PALETTE[0]
            values = task.models[method].values(task.primary)
            axes.plot(values, [place] * len(values), "|", color=color, alpha=0.45, markersize=7)
            axes.errorbar(
                found.mean, place, xerr=found.half_width, fmt="o", color=color, markersize=5,
                capsize=2.5, linewidth=1.4,
            )  # fmt: skip
            half_width = "" if found.half_width is None else digits(found.half_width)
            numbers = (digits(found.mean), half_width, *map(digits, values))
            rows.append((task.name, task.primary, method, *numbers))
        axes.set_yticks(range(len(order)), order)
        for label in axes.get_yticklabels():
            label.set_fontweight("bold" if label.get_text() == reference else "normal")
        rows += _references(axes, task)
        axes.set_title(task.name)
        axes.set_xlabel(TITLES[task.primary])
    drawn = [axes.get_legend_handles_labels() for axes in grid]
    handles = {label: line for found in drawn for line, label in zip(*found, strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2)
    return figure, rows


def _references(axes: Any, task: TaskRun) -> Iterator[Row]:
    """Lines of teacher and start; one far from all methods is told in words.

    Drawn to scale, a teacher at 95 would squeeze methods between 1 and 8 into one heap.
    """
    low, high = axes.get_xlim()
    reach = FAR * (high - low)
    lines: Iterable[tuple[str, str, str]] = (
        (TEACHER, "teacher", "--"),
        (START, "untrained student (SFT start)", ":"),
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


def _drawn(columns: Sequence[str], figure: Figure, rows: list[Row]) -> Drawn:
    data = io.BytesIO()
    # no software version in the file: equal numbers give equal bytes
    figure.savefig(data, format="png", metadata={"Software": None})
    whole = [(*row, *[""] * (len(columns) - len(row))) for row in rows]
    return Drawn(data.getvalue(), csv_text(columns, whole))
