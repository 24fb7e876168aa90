"""Figures as PNG bytes: training curves and the final comparison. Knows no statistics of its own.

One colour and one line style per method in all figures; the reference method is the black,
thick line.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import NDArray

from skd.metrics.statistics import seed_interval
from skd.report.compare import SKD_FAMILY, kind_of, start_of
from skd.report.run import START, TEACHER, Run, TaskRun, Training
from skd.report.tables import TITLES

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito
DASHES = ("-", "--", "-.", ":")
PANELS = ("fixed responses", "student samples", "interleaved sampling", "instruct start")
LINES_PER_PANEL = 6
SMOOTHING = 0.05  # share of a run over which a training curve is averaged
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
CURVES = (  # column of the log, axis label, logarithmic, smoothed
    ("loss", "training loss (own objective)", True, True),
    ("validation_kl", "validation KL to the teacher", True, False),
    ("validation_metric", "validation {metric}", False, False),
)
ON_POLICY = ("on_policy_kd", "on_policy_hard", "imit_kd", "two_stage_kd")

Floats = NDArray[np.float64]
Styles = dict[str, dict[str, Any]]


def figures(run: Run, reference: str) -> dict[str, bytes]:
    """File name -> PNG. A figure without any data is left out."""
    groups = panel_groups(run.tasks[0])
    styles = line_styles(groups, reference)
    with mpl.rc_context(STYLE):
        drawn = {"comparison.png": _png(_comparison(run, reference))}
        for task in run.tasks:
            drawn[f"curves-{task.name}.png"] = _png(_curves(task, groups, styles))
        if interleaved := [m for m in run.methods if _measured(run.tasks[0], m)]:
            drawn["acceptance.png"] = _png(_acceptance(run, interleaved, styles))
    return drawn


def panel_groups(task: TaskRun) -> dict[str, list[str]]:
    """Title -> methods, at most `LINES_PER_PANEL` each, by where their responses come from."""
    groups: dict[str, list[str]] = {title: [] for title in PANELS}
    for method in task.training:
        kind = kind_of(task, method)
        if start_of(task, method) == "instruct":
            title = "instruct start"
        elif kind in SKD_FAMILY:
            title = "interleaved sampling"
        elif kind in ON_POLICY:
            title = "student samples"
        else:
            title = "fixed responses"
        groups[title].append(method)
    split = {}
    for title, methods in groups.items():
        for part, begin in enumerate(range(0, len(methods), LINES_PER_PANEL)):
            name = title if part == 0 else f"{title} ({part + 1})"
            split[name] = methods[begin : begin + LINES_PER_PANEL]
    return split


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


def curve(training: Training, column: str, smooth: bool = False) -> tuple[Floats, Floats]:
    """Steps [n] and values [seeds, n] of the steps at which every seed has a value."""
    by_seed: dict[str, dict[int, float]] = {}
    for row in training.log:
        if row.get(column):
            by_seed.setdefault(row["seed"], {})[int(row["step"])] = float(row[column])
    if len(by_seed) < len(training.seeds):
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


def _draw(axes: Any, training: Training, column: str, smooth: bool, label: str, style: Any) -> None:
    steps, values = curve(training, column, smooth)
    if not steps.size:
        return
    marker = "o" if steps.size <= 12 else None
    axes.plot(steps, values.mean(0), label=label, marker=marker, markersize=3.5, **style)
    axes.fill_between(
        steps, values.min(0), values.max(0), color=style["color"], alpha=0.13, linewidth=0
    )


def _curves(task: TaskRun, groups: dict[str, list[str]], styles: Styles) -> Figure:
    rows = [row for row in CURVES if any(curve(t, row[0])[0].size for t in task.training.values())]
    figure = Figure(figsize=(1.2 + 2.9 * len(groups), 0.9 + 2.2 * len(rows)), layout="constrained")
    grid = figure.subplots(max(1, len(rows)), len(groups), sharex=True, sharey="row", squeeze=False)
    for line, (column, label, logarithmic, smooth) in enumerate(rows):
        for place, (title, methods) in enumerate(groups.items()):
            axes = grid[line][place]
            for method in methods:
                _draw(axes, task.training[method], column, smooth, method, styles[method])
            if logarithmic:
                axes.set_yscale("log")
                axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axes.yaxis.set_major_formatter("{x:g}")
                axes.yaxis.set_minor_formatter(NullFormatter())
            if line == 0:
                axes.set_title(title)
            if line == len(rows) - 1:
                axes.set_xlabel("optimiser step")
                axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.24), fontsize=8)
        grid[line][0].set_ylabel(label.format(metric=TITLES[task.primary]))
    figure.suptitle(f"{task.name}: mean over seeds; bands from the lowest to the highest seed")
    return figure


def _measured(task: TaskRun, method: str) -> bool:
    return curve(task.training[method], "acceptance_rate")[0].size > 0


def _acceptance(run: Run, methods: Sequence[str], styles: Styles) -> Figure:
    figure = Figure(figsize=(1.0 + 3.4 * len(run.tasks), 3.4), layout="constrained")
    grid = figure.subplots(1, len(run.tasks), sharey=True, squeeze=False)[0]
    shown = {
        method: styles[method]
        | ({} if styles[method]["color"] == "black" else {"color": PALETTE[place % len(PALETTE)]})
        for place, method in enumerate(methods)
    }
    for axes, task in zip(grid, run.tasks, strict=True):
        for method, style in shown.items():
            _draw(axes, task.training[method], "acceptance_rate", True, method, style)
        axes.set_title(task.name)
        axes.set_xlabel("optimiser step")
    grid[0].set_ylabel("accepted proposals, %")
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(6, len(labels)))
    return figure


def _comparison(run: Run, reference: str) -> Figure:
    """Primary metric per method with its interval over seeds; best mean on top."""
    height = 1.1 + 0.25 * len(run.methods)
    figure = Figure(figsize=(4.0 * len(run.tasks) + 0.6, height), layout="constrained")
    grid = figure.subplots(1, len(run.tasks), squeeze=False)[0]
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
        axes.set_yticks(range(len(order)), order)
        for label in axes.get_yticklabels():
            label.set_fontweight("bold" if label.get_text() == reference else "normal")
        _references(axes, task)
        axes.set_title(task.name)
        axes.set_xlabel(TITLES[task.primary])
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def _references(axes: Any, task: TaskRun) -> None:
    lines: Iterable[tuple[str, str, str]] = (
        (TEACHER, "teacher", "--"),
        (START, "untrained student (SFT start)", ":"),
    )
    for name, label, style in lines:
        mean = seed_interval(task.models[name].values(task.primary)).mean
        axes.axvline(mean, color="#777777", linestyle=style, linewidth=1.3, label=label)


def _png(figure: Figure) -> bytes:
    data = io.BytesIO()
    # no software version in the file: equal numbers give equal bytes
    figure.savefig(data, format="png", metadata={"Software": None})
    return data.getvalue()
