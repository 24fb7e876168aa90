"""Each method over all tasks: how much of the teacher's lead it closes, and how runs of it fare.

Knows no Markdown; the estimates and their intervals are those of `across`.
"""

from __future__ import annotations

from dataclasses import dataclass

from skd.report.reading.experiment import SFT_START, TEACHER_ROW, ExperimentResults
from skd.report.verdicts.across import Estimate, closed_share, pairs_won


@dataclass(frozen=True)
class Overall:
    method: str
    # Percent of the teacher's lead over the SFT start; None: on some task the lead is in doubt
    closed: Estimate | None
    # Percent of the pairs of runs that a run of the reference wins; None: it is the reference
    beaten: float | None


def overall(
    results: ExperimentResults, reference: str, *, resamples: int, seed: int
) -> list[Overall]:
    """The method that closes most of the lead comes first; else the order of the run."""
    tasks = [{name: task.scores(name) for name in task.models} for task in results.tasks]
    known = reference in results.methods
    rows = []
    for method in results.methods:
        closed = closed_share(tasks, method, SFT_START, TEACHER_ROW, resamples=resamples, seed=seed)
        beaten = None
        if known and method != reference:
            beaten = pairs_won(tasks, reference, method)
        rows.append(Overall(method, closed, beaten))
    return sorted(rows, key=lambda row: 0.0 if row.closed is None else -row.closed.value)
