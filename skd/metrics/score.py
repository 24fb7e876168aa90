"""Scores of a model's outputs on one task: the table of metrics and the one entry point.

Knows outputs and rows, never models. A metric that needs something heavy imports it when it
runs. Results are memoised on (output, references): validation during training and a test of
several seeds meet the same pairs again and again.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from skd.data.record import ExampleRow
from skd.errors import UserError
from skd.metrics import bleu, chrf, comet, rouge, simple
from skd.metrics.base import Batch, Comet, Metric, NotScored
from skd.metrics.primary import PRIMARY
from skd.tasks import TASKS

METRICS: dict[str, Metric] = {
    **PRIMARY,
    "chrf": chrf.chrf,
    "bleu": bleu.bleu,
    "comet": comet.comet,
    "rouge_1": rouge.rouge_1,
    "rouge_2": rouge.rouge_2,
    "valid": simple.valid,
    "stopped": simple.stopped,
}


@dataclass
class Scores:
    """All values in percent, by metric name."""

    per_example: dict[str, list[float]] = field(default_factory=dict)  # in row order
    system: dict[str, float] = field(default_factory=dict)
    signatures: dict[str, str] = field(default_factory=dict)
    not_scored: dict[str, str] = field(default_factory=dict)  # metric -> why


def score(
    task: str,
    rows: Sequence[ExampleRow],
    outputs: Sequence[str],
    stopped: Sequence[bool],
    *,
    only: Collection[str] | None = None,
    comet: Comet | None = None,
) -> Scores:
    """Score `outputs[i]` against `rows[i]` with the metrics of the task's kind.

    Args:
        task: a name of `skd.tasks.TASKS` (`data.<task>.task`, not the row's name).
        only: metric names; None: all of the task.
        comet: its checkpoint and where its scores are kept; None: COMET is not scored.

    Raises:
        UserError: no rows, an unknown metric, a row that cannot be scored, COMET not loadable.
    """
    if not rows:
        raise UserError(f"task {task!r}: no rows to score; the split is empty")
    if not len(rows) == len(outputs) == len(stopped):
        raise ValueError(f"{len(rows)} rows, {len(outputs)} outputs, {len(stopped)} stopped flags")
    names = TASKS[task].metrics if only is None else tuple(only)
    if unknown := set(names) - set(METRICS):
        raise UserError(f"unknown metric {sorted(unknown)}; known: {', '.join(METRICS)}")
    batch = Batch(rows, outputs, stopped, comet)
    scores = Scores()
    for name in names:
        result = METRICS[name](batch)
        if isinstance(result, NotScored):
            scores.not_scored[name] = result.reason
            continue
        scores.system[name] = result.system
        scores.signatures[name] = result.signature
        if result.per_example is not None:
            scores.per_example[name] = result.per_example
    return scores
