"""How fast methods get better: the validation metric over steps, tokens and seconds of training.

Few lines with names at their ends; a figure of small panels for each task has every method. Draws
on a figure and gives back the rows it drew; knows no file.
"""

from __future__ import annotations

from itertools import cycle
from math import ceil

from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from skd.report.figures.curves import PALETTE, DrawnRow, digits
from skd.report.figures.labels import spread_labels
from skd.report.reading.experiment import ExperimentResults, TaskResults
from skd.report.sections.cells import TITLES
from skd.report.sections.paper import REPORTED
from skd.report.verdicts.learning import Point, highest, points
from skd.report.verdicts.relations import row_of

AXES = {  # of a point -> what stands under the axis
    "step": "optimiser step",
    "tokens": "tokens through either model",
    "seconds": "seconds of training, validation apart",
}
MOST_LINES = 6
BLACK = "#000000"
COLUMNS = ("task", "method", *AXES, "mean", "lowest", "highest")
PANELS_PER_ROW = 5


def shown_methods(task: TaskResults, reference: str) -> list[str]:
    """The reference, the highest mean, and the baselines of the paper."""
    wanted = [reference, highest(task), *(row_of(task, kind) for kind in REPORTED)]
    names = [name for name in dict.fromkeys(wanted) if name in task.training]
    return [str(name) for name in names[:MOST_LINES]]


def convergence(results: ExperimentResults, reference: str) -> tuple[Figure, list[DrawnRow]]:
    """A row of panels per task, an axis each."""
    figure = Figure(figsize=(12.5, 0.6 + 2.8 * len(results.tasks)), layout="constrained")
    grid = figure.subplots(len(results.tasks), len(AXES), sharey="row", squeeze=False)
    shown = {task.name: shown_methods(task, reference) for task in results.tasks}
    others = dict.fromkeys(m for names in shown.values() for m in names if m != reference)
    colors = dict(zip(others, cycle(PALETTE), strict=False)) | {reference: BLACK}
    rows: list[DrawnRow] = []
    for line, task in zip(grid, results.tasks, strict=True):
        lines = {m: points(task.training[m]) for m in shown[task.name]}
        lines = {method: course for method, course in lines.items() if course}
        for axes, (axis, label) in zip(line, AXES.items(), strict=True):
            ends = {}
            for method, course in lines.items():
                places = [getattr(point, axis) for point in course]
                means = [point.mean for point in course]
                wide = 2.2 if method == reference else 1.5
                axes.plot(places, means, marker="o", markersize=3, linewidth=wide,
                          color=colors[method])  # fmt: skip
                ends[method] = (places[-1], means[-1], colors[method])
            low, high = axes.get_xlim()
            axes.set_xlim(low, high + 0.38 * (high - low))
            spread_labels(axes, ends, reference)
            axes.set_xlabel(label)
            axes.xaxis.set_major_locator(MaxNLocator(5))
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        line[0].set_ylabel(f"{task.name}\nvalidation {TITLES[task.primary]}")
        rows += _rows(task, lines)
    return figure, rows


def every_method(task: TaskResults, reference: str) -> tuple[Figure, list[DrawnRow]]:
    """A panel per method, over steps: its runs' range and mean, the reference's mean in grey."""
    lines = {method: points(training) for method, training in task.training.items()}
    lines = {method: course for method, course in lines.items() if course}
    height = ceil(len(lines) / PANELS_PER_ROW)
    figure = Figure(figsize=(12.5, 0.5 + 1.8 * height), layout="constrained")
    grid = figure.subplots(height, PANELS_PER_ROW, sharex=True, sharey=True, squeeze=False)
    for place, axes in enumerate(grid.flat):
        axes.set_visible(place < len(lines))
        axes.tick_params(labelbottom=place + PANELS_PER_ROW >= len(lines))  # nothing is below
    for axes, (method, course) in zip(grid.flat, lines.items(), strict=False):
        steps = [point.step for point in course]
        alone = "o" if len(steps) == 1 else None  # a line of one point shows nothing
        if reference in lines:
            known = lines[reference]
            axes.plot([p.step for p in known], [p.mean for p in known], color="#AAAAAA",
                      marker=alone, markersize=6)  # fmt: skip
        color = BLACK if method == reference else PALETTE[0]
        axes.plot(steps, [p.mean for p in course], color=color, linewidth=1.8,
                  marker=alone, markersize=4)  # fmt: skip
        axes.fill_between(
            steps, [p.lowest for p in course], [p.highest for p in course], color=color,
            alpha=0.15, linewidth=0 if alone is None else 1.8,
        )  # fmt: skip
        axes.set_title(method, fontsize=9)
    figure.supxlabel("optimiser step", fontsize=9)
    figure.supylabel(f"validation {TITLES[task.primary]}", fontsize=9)
    return figure, _rows(task, lines)


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
