"""Shares that need no library: right final answers, outputs in the valid set, ended outputs."""

from __future__ import annotations

import re
from functools import lru_cache
from importlib.metadata import version
from math import isnan
from statistics import fmean

from skd.data.record import ExampleRow
from skd.errors import UserError
from skd.metrics.base import Batch, NotScored, Result, mean_result
from skd.tasks.arithmetic import MARK, TOLERANCE, same_answer


def exact_match(batch: Batch) -> Result:
    """Share of outputs whose final answer equals the target's (paper, section 4)."""
    scores = [
        100.0 * _right(row, output) for row, output in zip(batch.rows, batch.outputs, strict=True)
    ]
    return mean_result(
        scores,
        f"answer after the first {MARK}, else in the last \\boxed|tolerance:{TOLERANCE}|"
        f"formulas:math-verify {version('math-verify')}",
    )


def _right(row: ExampleRow, output: str) -> bool:
    try:
        return same_answer(output, str(row["target"]))
    except ValueError as error:
        raise UserError(
            f"row {row['id']!r}: {error}; exact_match needs targets with '{MARK} ANSWER' or "
            "'\\boxed{{ANSWER}}' at their end (for own files, name "
            "the answer column in data.<task>.source.columns.answer)"
        ) from None


def valid(batch: Batch) -> Result | NotScored:
    """Share of outputs in the valid set, over the rows whose source knows the whole set.

    Rows that do not know it are NaN in `per_example` and do not enter the share.
    """
    scores = [
        _in_valid_set(row, output) for row, output in zip(batch.rows, batch.outputs, strict=True)
    ]
    known = [score for score in scores if not isnan(score)]
    if not known:
        return NotScored("the source does not know the whole set of valid outputs")
    signature = f"whole output in the valid set|rows:{len(known)}/{len(scores)}"
    return Result(fmean(known), signature, scores)


def _in_valid_set(row: ExampleRow, output: str) -> float:
    text, pattern = output.strip(), row.get("valid_pattern")
    if row.get("references_complete"):
        return 100.0 * (text in row["references"])
    if pattern is None:
        return float("nan")
    return 100.0 * (_compiled(pattern, str(row["id"])).fullmatch(text) is not None)


@lru_cache(maxsize=4096)
def _compiled(pattern: str, row_id: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise UserError(
            f"row {row_id!r}: valid_pattern is no regular expression: {error}"
        ) from None


def stopped(batch: Batch) -> Result:
    """Share of outputs that ended by an end-of-sequence token within the budget."""
    return mean_result([100.0 * bool(ended) for ended in batch.stopped], "ended by end-of-sequence")
