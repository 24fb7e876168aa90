"""The report's tables as CSV, with plain numbers: not rounded for reading, not marked up."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from skd.report.reading.analyses import Analyses
from skd.report.reading.experiment import ExperimentResults
from skd.report.sections import crosscheck, fairness, scaling, test_sets
from skd.report.sections.costs import COSTS, PHASES, mean_cost, mean_phases
from skd.report.sections.probe import (
    COURSE_COLUMNS,
    DRAFT_COLUMNS,
    PROPOSAL_COLUMNS,
    course_rows,
    draft_rows,
    proposal_rows,
)
from skd.report.sections.sweeps import SWEEP_COLUMNS, sweep_rows
from skd.report.verdicts.evidence import Evidence
from skd.report.verdicts.statistics import seed_interval

COMPARISON_COLUMNS = (
    "task", "metric", "method", "other", "difference", "effect", "low", "high", "p", "verdict",
    "smallest_lead", "seeds_needed",
)  # fmt: skip
OVERALL_COLUMNS = ("method", "statistic", "percent", "low", "high")


def sheets(results: ExperimentResults, analyses: Analyses, evidence: Evidence) -> dict[str, str]:
    """File name -> CSV text. Scores are in percent, differences in points of them."""
    return {
        "scores.csv": csv_text(
            ("task", "model", "metric", "mean", "half_width", "seeds"), _scores(results)
        ),
        "comparisons.csv": csv_text(COMPARISON_COLUMNS, _comparisons(evidence)),
        "overall.csv": csv_text(OVERALL_COLUMNS, _overall(evidence)),
        "costs.csv": csv_text(
            ("task", "method", *COSTS, *(f"{p}_seconds" for p in PHASES)),
            _costs(results),
        ),
        "test_sets.csv": csv_text(test_sets.COLUMNS, test_sets.rows(results, evidence)),
        "sacrebleu.csv": csv_text(crosscheck.COLUMNS, crosscheck.rows(evidence)),
        "sweeps.csv": csv_text(SWEEP_COLUMNS, sweep_rows(analyses)),
        "fairness.csv": csv_text(
            fairness.COLUMNS, fairness.fairness_rows(analyses, evidence.budgets)
        ),
        "students.csv": csv_text(scaling.COLUMNS, scaling.scaling_rows(analyses.students)),
        "proposals.csv": csv_text(PROPOSAL_COLUMNS, proposal_rows(analyses.probe)),
        "course.csv": csv_text(COURSE_COLUMNS, course_rows(results)),
        "drafts.csv": csv_text(DRAFT_COLUMNS, draft_rows(analyses.probe)),
        "failures.csv": csv_text(
            ("task", "method", "failure", "numbers", "remedy"),
            [tuple(vars(failure).values()) for failure in evidence.failures],
        ),
    }


def _scores(results: ExperimentResults) -> Iterable[Sequence[object]]:
    for task in results.tasks:
        for name, model in task.models.items():
            for metric in task.metrics:
                if values := model.values(metric):
                    interval = seed_interval(values)
                    yield task.name, name, metric, *vars(interval).values()


def _comparisons(evidence: Evidence) -> Iterable[Sequence[object]]:
    """All pairs; what no verdict was possible of has no interval."""
    for task, tables in evidence.tables.items():
        for metric, table in tables.items():
            for verdict in table.pairs:
                comparison = verdict.comparison
                judged: tuple[object, ...] = ("",) * 6
                if verdict.possible:
                    judged = (
                        comparison.low, comparison.high, comparison.p, verdict.word.value,
                        comparison.smallest_lead(), comparison.seeds_needed,
                    )  # fmt: skip
                yield (
                    task, metric, verdict.method, verdict.other, comparison.difference,
                    comparison.effect, *judged,
                )  # fmt: skip


def _overall(evidence: Evidence) -> Iterable[Sequence[object]]:
    """A row per method and statistic over all tasks."""
    for row in evidence.overall:
        if (closed := row.closed) is not None:
            yield row.method, "lead_closed", closed.value, closed.low, closed.high
        if row.beaten is not None:
            yield row.method, "beaten_by_reference", row.beaten, None, None


def _costs(results: ExperimentResults) -> Iterable[Sequence[object]]:
    for task in results.tasks:
        for method, training in task.training.items():
            costs = (mean_cost(training, column) for column in COSTS.values())
            yield task.name, method, *costs, *mean_phases(training).values()


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()
