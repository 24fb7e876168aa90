"""What a metric receives and what it gives back. Knows no metric and no model."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from skd.data.record import ExampleRow
from skd.errors import UserError

References = tuple[str, ...]


@dataclass(frozen=True)
class Comet:
    """With what COMET is scored, and where its scores are kept."""

    checkpoint: str  # folder or Hub id
    encoder: str | None  # folder of its encoder's configuration and tokenizer; None: beside it
    cache: Path  # file of raw scores of segments; safe to delete
    bar: int | None = None  # line of the progress bar; None: no bar


@dataclass(frozen=True)
class Batch:
    """The outputs of one model on one split, in row order."""

    rows: Sequence[ExampleRow]
    outputs: Sequence[str]
    stopped: Sequence[bool]  # ended by an end-of-sequence token within the budget
    comet: Comet | None = None

    @functools.cached_property
    def references(self) -> tuple[References, ...]:
        """Every valid reference of every row; rows may have different numbers of them."""
        return tuple(_references(row) for row in self.rows)


@dataclass(frozen=True)
class Result:
    """Percent. `per_example` is None for a corpus metric."""

    system: float
    signature: str  # enough to compute the number again: library, version, settings
    per_example: list[float] | None = None


@dataclass(frozen=True)
class NotScored:
    reason: str


Metric = Callable[[Batch], Result | NotScored]


def mean_result(scores: list[float], signature: str) -> Result:
    """A per-example metric whose system score is the plain mean."""
    return Result(sum(scores) / len(scores), signature, scores)


def references_signature(batch: Batch) -> str:
    counts = [len(references) for references in batch.references]
    low, high = min(counts), max(counts)
    return f"nrefs:{low}" if low == high else f"nrefs:var({low}-{high})"


def _references(row: ExampleRow) -> References:
    references = row.get("references") or [row.get("target")]
    if not all(isinstance(reference, str) for reference in references):
        raise UserError(f"row {row.get('id')!r} has no reference; rerun `dvc repro prepare`")
    return tuple(references)
