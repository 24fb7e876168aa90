"""The metrics that select weights and enter the paired tests: one per kind of task, per example.

They stand apart from the whole table (`skd.metrics.score`), so that training depends on none but
these. Refuses to know models.
"""

from __future__ import annotations

from collections.abc import Sequence

from skd.data.record import ExampleRow
from skd.errors import UserError
from skd.metrics.base import Batch, Metric, NotScored
from skd.metrics.chrf import sentence_chrf
from skd.metrics.rouge import rouge_l
from skd.metrics.simple import exact_match
from skd.tasks import TASKS

PRIMARY: dict[str, Metric] = {
    "sentence_chrf": sentence_chrf,
    "rouge_l": rouge_l,
    "exact_match": exact_match,
}


def primary_score(
    kind: str, rows: Sequence[ExampleRow], outputs: Sequence[str], stopped: Sequence[bool]
) -> float:
    """The primary metric of a kind of task over all rows, percent.

    Args:
        kind: a name of the table of tasks.
        outputs: one per row.
        stopped: whether an end-of-sequence token ended each output within the budget.

    Raises:
        UserError: there are no rows, or a row cannot be scored.
    """
    if not rows:
        raise UserError(f"task {kind!r}: no rows to score; the split is empty")
    if not len(rows) == len(outputs) == len(stopped):
        raise ValueError(f"{len(rows)} rows, {len(outputs)} outputs, {len(stopped)} stopped flags")
    result = PRIMARY[TASKS[kind].primary](Batch(rows, outputs, stopped))
    assert not isinstance(result, NotScored)  # a per-example metric scores every row
    return result.system
