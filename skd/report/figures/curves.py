"""Lines over the steps of training, and the points that they go through.

One colour and one line style per method in all figures; the reference method is the black,
thick line. Draws on a figure and gives back the rows it drew; knows no file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import NDArray

from skd.report.reading.experiment import ExperimentResults, MethodTraining, TaskResults
from skd.report.sections.cells import TITLES
from skd.report.verdicts.relations import start_of
from skd.training.methods import ResponseSource

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito
DASHES = ("-", "--", "-.", ":")
PANELS = ("fixed responses", "student samples", "interleaved sampling", "instruct start")
LINES_PER_PANEL = 6
SMOOTHING = 0.05  # share of a run over which a training curve is averaged
CURVES = (  # column of the log, axis label, logarithmic, smoothed
    ("loss", "training loss (own objective)", True, True),
    ("validation_kl", "validation KL to the teacher", True, False),
    ("validation_metric", "validation {metric}", False, False),
)
POINT = ("method", "step", "mean", "lowest", "highest")  # over seeds
CURVE_COLUMNS = ("curve", *POINT)
ACCEPTANCE_COLUMNS = ("task", *POINT)

Floats = NDArray[np.float64]
Styles = dict[str, dict[str, Any]]
# A line of a figure's CSV
DrawnRow = tuple[str | int, ...]


def panel_groups(task: TaskResults) -> dict[str, list[str]]:
    """Title -> methods, at most `LINES_PER_PANEL` each, by where their responses come from."""
    groups: dict[str, list[str]] = {title: [] for title in PANELS}
    for method in task.training:
        groups[_group(task, method)].append(method)
    split = {}
    for title, methods in groups.items():
        for part, begin in enumerate(range(0, len(methods), LINES_PER_PANEL)):
            name = title if part == 0 else f"{title} ({part + 1})"
            split[name] = methods[begin : begin + LINES_PER_PANEL]
    return split


def _group(task: TaskResults, method: str) -> str:
    """A name of `PANELS`."""
    if start_of(task, method) == "instruct":
        return "instruct start"
    sources = task.training[method].method.sources
    if ResponseSource.INTERLEAVED in sources:
        return "interleaved sampling"
    return "student samples" if ResponseSource.STUDENT in sources else "fixed responses"


def line_styles(groups: dict[str, list[str]], reference: str) -> Styles:
    styles: Styles = {}
    for methods in groups.values():
        for place, method in enumerate(methods):
            styles[method] = {
                "color": PALETTE[place % len(PALETTE)],
                "linestyle": DASHES[place % len(DASHES)],
                "linewidth": 1.5,
            }
    styles[reference] = {"color": "black", "linestyle": "-", "linewidth": 2.2}
    return styles


def curve(training: MethodTraining, column: str, smooth: bool = False) -> tuple[Floats, Floats]:
    """Steps [n] and values [seeds, n] of the steps at which every seed has a value."""
    by_seed: dict[int, dict[int, float]] = {}
    for row in training.log:
        if (value := getattr(row, column)) is not None:
            by_seed.setdefault(row.seed, {})[row.step] = value
    if len(by_seed) < len(training.runs):
        return np.empty(0), np.empty((0, 0))
    steps = sorted(set.intersection(*(set(points) for points in by_seed.values())))
    values = np.array([[points[step] for step in steps] for points in by_seed.values()])
    if smooth and len(steps) > 1:
        values = np.array(
            [_smoothed(line, max(1, round(SMOOTHING * len(steps)))) for line in values]
        )
    return np.array(steps, dtype=np.float64), values


def _smoothed(line: Floats, window: int) -> Floats:
    """Running mean; at the ends over the part of the window that exists."""
    kernel = np.ones(window)
    averaged: Floats = np.convolve(line, kernel, "same") / np.convolve(
        np.ones_like(line), kernel, "same"
    )
    return averaged


def _draw(
    axes: Any, training: MethodTraining, column: str, smooth: bool, method: str, style: Any
) -> Iterator[DrawnRow]:
    """Draw one line and yield its points, a `POINT` each; nothing where a seed has no value."""
    steps, values = curve(training, column, smooth)
    if not steps.size:
        return
    marker = "o" if steps.size <= 12 else None
    mean, low, high = values.mean(0), values.min(0), values.max(0)
    axes.plot(steps, mean, label=method, marker=marker, markersize=3.5, **style)
    axes.fill_between(steps, low, high, color=style["color"], alpha=0.13, linewidth=0)
    for step, *numbers in zip(steps, mean, low, high, strict=True):
        yield method, int(step), *map(digits, numbers)


def digits(value: float) -> str:
    """More than a pixel tells, and no more."""
    return f"{value:.6g}"


def curves(
    task: TaskResults, groups: dict[str, list[str]], styles: Styles
) -> tuple[Figure, list[DrawnRow]]:
    shown = [row for row in CURVES if any(curve(t, row[0])[0].size for t in task.training.values())]
    size = (1.2 + 2.9 * len(groups), 0.9 + 2.2 * len(shown))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(
        max(1, len(shown)), len(groups), sharex=True, sharey="row", squeeze=False
    )
    rows: list[DrawnRow] = []
    for line, (column, label, logarithmic, smooth) in enumerate(shown):
        for place, (title, methods) in enumerate(groups.items()):
            axes = grid[line][place]
            for method in methods:
                points = _draw(axes, task.training[method], column, smooth, method, styles[method])
                rows += [(column, *point) for point in points]
            if logarithmic:
                axes.set_yscale("log")
                axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axes.yaxis.set_major_formatter("{x:g}")
                axes.yaxis.set_minor_formatter(NullFormatter())
            if line == 0:
                axes.set_title(title)
            if line == len(shown) - 1:
                axes.set_xlabel("optimiser step")
                axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.24), fontsize=8)
        grid[line][0].set_ylabel(label.format(metric=TITLES[task.primary]))
    figure.suptitle(f"{task.name}: mean over seeds; bands from the lowest to the highest seed")
    return figure, rows


def measured(task: TaskResults, method: str) -> bool:
    return curve(task.training[method], "acceptance_rate")[0].size > 0


def acceptance(
    results: ExperimentResults, methods: Sequence[str], styles: Styles
) -> tuple[Figure, list[DrawnRow]]:
    figure = Figure(figsize=(1.0 + 3.4 * len(results.tasks), 3.4), layout="constrained")
    grid = figure.subplots(1, len(results.tasks), sharey=True, squeeze=False)[0]
    shown = {
        method: styles[method]
        | ({} if styles[method]["color"] == "black" else {"color": PALETTE[place % len(PALETTE)]})
        for place, method in enumerate(methods)
    }
    rows: list[DrawnRow] = []
    for axes, task in zip(grid, results.tasks, strict=True):
        for method, style in shown.items():
            points = _draw(axes, task.training[method], "acceptance_rate", True, method, style)
            rows += [(task.name, *point) for point in points]
        axes.set_title(task.name)
        axes.set_xlabel("optimiser step")
    grid[0].set_ylabel("accepted proposals, %")
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(6, len(labels)))
    return figure, rows
