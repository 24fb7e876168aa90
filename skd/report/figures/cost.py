"""Score against cost, per task, with the methods that no other beats in both (Pareto front).

Draws on a figure and gives back the rows it drew. Means only: it decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure

from skd.report.figures.curves import PALETTE, DrawnRow, digits
from skd.report.figures.labels import spread_labels
from skd.report.reading.experiment import TEACHER_ROW, ExperimentResults, TaskResults
from skd.report.sections.cells import TITLES
from skd.report.verdicts.choice import seconds_of

COLUMNS = ("task", "metric", "method", "seconds", "mean", "front")
ROOM = 0.35  # of the points' width, for a name beside the last of them
FEW = 10  # methods whose names a figure of plain height has room for
LINE_OF_NAMES = 0.13  # inches that each further one makes it higher
WIDE = 8.0  # most expensive over cheapest method, from which on the axis is logarithmic


def cost(results: ExperimentResults, reference: str) -> tuple[Figure, list[DrawnRow]]:
    most = max(len(task.training) for task in results.tasks)
    size = (4.4 * len(results.tasks), 3.9 + LINE_OF_NAMES * max(0, most - FEW))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(1, len(results.tasks), squeeze=False)[0]
    rows: list[DrawnRow] = []
    for axes, task in zip(grid, results.tasks, strict=True):
        rows += _panel(axes, task, reference)
    return figure, rows


def front(places: Mapping[str, tuple[float, float]]) -> list[str]:
    """Of name -> (cost, score), those for which more score costs more; the cheapest first."""
    best = float("-inf")
    names = []
    for name in sorted(places, key=lambda name: (places[name][0], -places[name][1])):
        if places[name][1] > best:
            names.append(name)
            best = places[name][1]
    return names


def _room_for_names(axes: Any) -> None:
    """Right of the last point, on a plain or a logarithmic axis."""
    scale = axes.xaxis.get_transform()
    low, high = scale.transform(axes.get_xlim())
    axes.set_xlim(*scale.inverted().transform([low, high + ROOM * (high - low)]))


def _panel(axes: Any, task: TaskResults, reference: str) -> list[DrawnRow]:
    places = {
        method: (seconds_of(task, method), fmean(task.models[method].values(task.primary)))
        for method in task.training
    }
    leading = front(places)
    axes.step(
        [places[name][0] for name in leading],
        [places[name][1] for name in leading],
        where="post", color=PALETTE[0], linewidth=1.3, zorder=1,
    )  # fmt: skip
    for name, place in places.items():
        color = "black" if name == reference else PALETTE[0] if name in leading else "#8A8A8A"
        axes.plot(*place, "o", color=color, markersize=5, zorder=4)  # over other points' names
    seconds = [place[0] for place in places.values()]
    if max(seconds) > WIDE * min(seconds) > 0:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
    teacher = fmean(task.models[TEACHER_ROW].values(task.primary))
    low, high = axes.get_ylim()
    if teacher <= high + (high - low) / 2:
        axes.axhline(teacher, color="#777777", linestyle="--", linewidth=1.2)
        axes.annotate("teacher", (0, teacher), xycoords=("axes fraction", "data"), fontsize=8,
                      xytext=(3, 2), textcoords="offset points", color="#555555")  # fmt: skip
    axes.margins(x=0.06, y=0.1)
    _room_for_names(axes)
    spread_labels(
        axes,
        {
            name: (*place, "black" if name in (*leading, reference) else "#777777")
            for name, place in places.items()
        },
        reference,
    )
    axes.set_title(task.name)
    axes.set_xlabel("seconds of training, one student")
    axes.set_ylabel(TITLES[task.primary])
    return [
        (task.name, task.primary, name, digits(x), digits(y), "×" if name in leading else "")
        for name, (x, y) in places.items()
    ]
