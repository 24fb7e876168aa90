"""A row's named columns as one record: source, target, references, final answer.

This module knows neither files nor the Hub: a row comes with the place it stands at.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

from skd.data.record import Record, start_of
from skd.data.settings import Columns
from skd.data.tables import SourceRow
from skd.errors import UserError
from skd.tasks.arithmetic import MARK, answer_text, last_box

SLOT = re.compile(r"\{([^{}]+)\}")
HALF = re.compile("[\ud800-\udfff]")  # JSON can write one, and no file can hold it
CALCULATOR = re.compile(r"<<[^<>]*>>")  # GSM8K's marks: "48/2 = <<48/2=24>>24"


def records(rows: Iterable[SourceRow], columns: Columns, task: str) -> list[Record]:
    """One record a row, in order, without the rows that `columns.skip` leaves out.

    Raises:
        UserError: a column is missing, empty or no text, with the row's place.
    """
    if columns.target is None and not columns.references and columns.answer is None:
        raise UserError("columns: name a target column, a references column or an answer column")
    return [
        _record(where, values, columns, task)
        for where, values in rows
        if not _skipped(where, values, columns)
    ]


def _skipped(where: str, values: dict[str, Any], columns: Columns) -> bool:
    return any(
        str(_cell(where, values, column)).strip() == text for column, text in columns.skip.items()
    )


def _record(where: str, values: dict[str, Any], columns: Columns, task: str) -> Record:
    source = _one(where, values, columns.source)
    references = [text for column in columns.references for text in _several(where, values, column)]
    if columns.target is not None:
        target = _one(where, values, columns.target)
    else:
        target = references[0] if references else ""
    if task == "arithmetic":
        target = CALCULATOR.sub("", target)
    if columns.answer is not None:
        target = _with_answer(where, target, _one(where, values, columns.answer))
    if task == "arithmetic":
        if not answer_text(target):
            raise UserError(
                f"{where}: the target has no final answer after {MARK!r} and none in \\boxed{{…}} "
                f"({start_of(target)!r}); name its column in columns.answer"
            )
        references = []  # a worked solution is judged by its answer alone
    return Record(source, target, tuple(dict.fromkeys([target, *references])), None, where)


def _with_answer(where: str, target: str, answer: str) -> str:
    answer = " ".join(answer.split())  # what follows the mark is one line
    last = f"{MARK} {answer}"
    if target == last or target.endswith(f"\n{last}") or last_box(target) == answer:
        return target
    if MARK in target:
        raise UserError(
            f"{where}: the target already holds {MARK!r}, and not with the answer {answer!r}; "
            "correct the row or remove columns.answer"
        )
    return f"{target}\n{last}" if target else last


def _one(where: str, values: dict[str, Any], column: str) -> str:
    """The text of a column, or of a template such as `{Body} {Question}`."""
    if column in values or not SLOT.search(column):
        return _text(where, column, _cell(where, values, column))
    return SLOT.sub(lambda match: _one(where, values, match[1]), column)


def _several(where: str, values: dict[str, Any], column: str) -> list[str]:
    """The texts of a reference column: one text, or a list of them."""
    if column not in values and SLOT.search(column):
        return [_one(where, values, column)]
    cell = _cell(where, values, column)
    texts = cell if isinstance(cell, list) else [cell]
    if not texts:
        raise UserError(f"{where}: column {column!r} is an empty list; every row needs a reference")
    return [_text(where, column, text) for text in texts]


def _cell(where: str, values: dict[str, Any], column: str) -> Any:
    if column not in values:
        raise UserError(f"{where}: no column {column!r}; there are: {', '.join(values) or 'none'}")
    return values[column]


def _text(where: str, column: str, cell: Any) -> str:
    if isinstance(cell, float) and math.isfinite(cell) and cell == int(cell):
        cell = int(cell)  # 51.0 is written 51
    if isinstance(cell, bool) or not isinstance(cell, str | int | float | None):
        raise UserError(f"{where}: column {column!r} holds {type(cell).__name__}, not a text")
    if isinstance(cell, float) and math.isinf(cell):
        raise UserError(f"{where}: column {column!r} holds no finite number")
    text = "" if cell is None or cell != cell else str(cell).replace("\r\n", "\n").strip()
    if not text:
        raise UserError(f"{where}: column {column!r} is empty; fill it or remove the row")
    if HALF.search(text):
        raise UserError(f"{where}: column {column!r} holds half of a UTF-16 pair; correct the row")
    return text
