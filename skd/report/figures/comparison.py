"""What is decided: each method's difference to the reference with its interval, per task.

Draws on a figure and gives back the rows it drew; judges nothing itself.
"""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from skd.report.figures.curves import DrawnRow, digits
from skd.report.reading.experiment import ExperimentResults
from skd.report.sections.cells import TITLES, points_text
from skd.report.verdicts.comparison import Word
from skd.report.verdicts.evidence import Evidence
from skd.report.verdicts.tables import Verdict, VerdictTable

COLUMNS = (
    "task", "metric", "method", "reference", "difference", "low", "high", "verdict",
)  # fmt: skip
# Word -> colour (Okabe and Ito) and marker, so that neither is needed alone
LOOKS = {
    Word.BETTER: ("#0072B2", "^"),
    Word.EQUAL: ("#009E73", "s"),
    Word.UNDECIDED: ("#8A8A8A", "o"),
    Word.WORSE: ("#D55E00", "v"),
}


def comparison(results: ExperimentResults, evidence: Evidence) -> tuple[Figure, list[DrawnRow]]:
    """Method minus reference, the highest on top."""
    height = 1.5 + 0.22 * len(results.methods)
    figure = Figure(figsize=(4.0 * len(results.tasks) + 0.8, height), layout="constrained")
    grid = figure.subplots(1, len(results.tasks), squeeze=False)[0]
    rows: list[DrawnRow] = []
    for axes, task in zip(grid, results.tasks, strict=True):
        rows += _panel(axes, evidence.of(task.name), evidence.reference)
    figure.legend(handles=_legend(evidence), loc="outside lower center", ncols=3, handletextpad=0.3)
    return figure, rows


def _panel(axes: Any, table: VerdictTable, reference: str) -> list[DrawnRow]:
    verdicts = sorted(
        (verdict.mirrored() for verdict in table.against_reference.values()),
        key=lambda verdict: verdict.comparison.difference,
    )
    axes.axvspan(-table.margin, table.margin, color="#000000", alpha=0.08, linewidth=0)
    axes.axvline(0, color="black", linewidth=1.4)
    rows: list[DrawnRow] = []
    for place, verdict in enumerate(verdicts):
        _mark(axes, place, verdict)
        made = verdict.comparison
        judged = ("", "", "")
        if verdict.possible:
            judged = (digits(made.low), digits(made.high), verdict.word.value)
        names = (table.task.name, table.metric, made.method, reference)
        rows.append((*names, digits(made.difference), *judged))
    axes.set_yticks(range(len(verdicts)), [verdict.method for verdict in verdicts])
    axes.set_ylim(-0.7, len(verdicts) - 0.3)
    axes.grid(visible=False, axis="y")
    axes.set_title(table.task.name)
    axes.set_xlabel(f"{TITLES[table.metric]}: points\nover {reference}")
    return rows


def _mark(axes: Any, place: int, verdict: Verdict) -> None:
    made = verdict.comparison
    color, marker = LOOKS[verdict.word]
    axes.errorbar(
        made.difference,
        place,
        xerr=made.half_width if verdict.possible else None,
        fmt=marker,
        color=color,
        markerfacecolor="white" if verdict.word is Word.UNDECIDED else color,
        markersize=5.5,
        capsize=0,
        linewidth=1.6,
    )


def _legend(evidence: Evidence) -> list[Any]:
    reference = evidence.reference
    texts = {
        Word.BETTER: f"better than {reference}",
        Word.EQUAL: f"equal to {reference}",
        Word.UNDECIDED: "undecided" if evidence.possible else "no verdict: too few seeds",
        Word.WORSE: f"worse than {reference}",
    }
    shown = texts if evidence.possible else {Word.UNDECIDED: texts[Word.UNDECIDED]}
    marks: list[Any] = []
    for word, text in shown.items():
        color, marker = LOOKS[word]
        face = "white" if word is Word.UNDECIDED else color
        marks.append(Line2D([], [], color=color, marker=marker, markerfacecolor=face, label=text))
    band = f"margin, ± {points_text(evidence.margin)}"
    marks.append(Line2D([], [], color="#000000", alpha=0.12, linewidth=8, label=band))
    return marks
