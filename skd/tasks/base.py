"""What a task is: how its prompt reads and how its outputs are scored.

Text only. This module knows no model, no tokenizer and no metric's code: metrics are names
here, `skd.metrics.score` holds the functions.
"""

from __future__ import annotations

from dataclasses import dataclass

from skd.errors import UserError

SLOT = "{source}"


@dataclass(frozen=True)
class Task:
    """One kind of task. Every metric is in percent and higher is better."""

    name: str
    prompt: str  # template with {source}: the user turn
    metrics: tuple[str, ...]  # names of `skd.metrics.score.METRICS`, in report order
    primary: str  # per-example metric: picks checkpoints, enters the paired tests


def render(template: str, source: str) -> str:
    """The prompt of one example; braces in the source stay as they are.

    Raises:
        UserError: the template has no `{source}`.
    """
    if SLOT not in template:
        raise UserError(
            f"prompt template {template!r} has no {SLOT}; put it where the input text belongs"
        )
    return template.replace(SLOT, source)
