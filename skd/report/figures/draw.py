"""Figures as PNG bytes, each with the numbers it shows as CSV. Knows no statistics of its own."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.figure import Figure

from skd.report.figures import comparison, convergence, cost
from skd.report.figures.curves import (
    ACCEPTANCE_COLUMNS,
    CURVE_COLUMNS,
    DrawnRow,
    acceptance,
    curves,
    line_styles,
    measured,
    panel_groups,
)
from skd.report.reading.experiment import ExperimentResults
from skd.report.sections.sheets import csv_text
from skd.report.verdicts.evidence import Evidence
from skd.report.verdicts.learning import points

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


@dataclass(frozen=True)
class Drawn:
    png: bytes
    # Every number that was drawn
    csv: str


def figures(results: ExperimentResults, evidence: Evidence) -> dict[str, Drawn]:
    """By name, without a suffix. A figure without any data is left out."""
    reference = evidence.reference
    groups = panel_groups(results.tasks[0])
    styles = line_styles(groups, reference)
    drawn = {}
    with mpl.rc_context(STYLE):
        if evidence.planned:
            drawn["comparison"] = _drawn(
                comparison.COLUMNS, *comparison.comparison(results, evidence)
            )
        drawn["cost"] = _drawn(cost.COLUMNS, *cost.cost(results, reference))
        for task in results.tasks:
            name = f"curves-{task.name}"
            drawn[name] = _drawn(CURVE_COLUMNS, *curves(task, groups, styles))
            if any(points(training) for training in task.training.values()):
                drawn[f"methods-{task.name}"] = _drawn(
                    convergence.COLUMNS, *convergence.every_method(task, reference)
                )
        if any(name.startswith("methods-") for name in drawn):
            drawn["convergence"] = _drawn(
                convergence.COLUMNS, *convergence.convergence(results, reference)
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


def _drawn(columns: Sequence[str], figure: Figure, rows: list[DrawnRow]) -> Drawn:
    data = io.BytesIO()
    # no software version in the file: equal numbers give equal bytes
    figure.savefig(data, format="png", metadata={"Software": None})
    return Drawn(data.getvalue(), csv_text(columns, rows))
