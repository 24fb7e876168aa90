"""Files as rows: JSON Lines, JSON, CSV, TSV and Parquet, each row with the place it stands at.

Nothing is repaired and nothing is skipped but blank lines: a row that cannot be read is one
error with file and line. This module knows no column's meaning.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from skd.errors import UserError

csv.field_size_limit(2**31 - 1)  # characters: a field may be as long as in the other kinds

SourceRow = tuple[str, dict[str, Any]]  # where it stands, its columns


def read(path: Path, shown: str) -> list[SourceRow]:
    """All rows of a file; `shown` is its name in messages.

    Raises:
        UserError: no such file, unknown suffix, or a malformed row (file and line).
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise UserError(
            f"{shown}: unknown file type {path.suffix!r}; use one of {', '.join(READERS)}"
        )
    try:
        if not path.is_file():
            raise UserError(f"{shown}: no such file; correct the path in params.yaml")
        return list(reader(path, shown))
    except OSError as error:  # a name that is too long, no right to read
        raise UserError(f"{shown}: cannot be read ({error.strerror})") from None


def _text(path: Path, shown: str) -> str:
    raw = path.read_bytes()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UserError(f"{shown}, line {line}: not UTF-8; convert the file to UTF-8") from None


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        ((twice, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the key {twice!r} stands twice")
    return values


# A number of more than 4,300 digits is a ValueError, as one key twice is
_DECODER = json.JSONDecoder(object_pairs_hook=_no_key_twice)


def _json_lines(path: Path, shown: str) -> Iterator[SourceRow]:
    # split("\n"): splitlines() would also break at U+2028, which JSON strings may hold
    for number, line in enumerate(_text(path, shown).split("\n"), start=1):
        if line.strip():
            where = f"{shown}, line {number}"
            try:
                value = _DECODER.decode(line)
            except (ValueError, RecursionError) as error:
                raise UserError(f"{where}: not valid JSON ({error}); one object a line") from None
            yield where, _object(value, where)


def _json(path: Path, shown: str) -> Iterator[SourceRow]:
    """A list of objects, decoded one by one so that each row knows its line."""
    text = _text(path, shown)
    position = _skip(text, 0)
    if text[position : position + 1] != "[":
        raise UserError(f"{shown}, line 1: a .json file must hold a list of objects")
    position = _skip(text, position + 1)
    line, counted = 1, 0
    while text[position : position + 1] != "]":
        line, counted = line + text.count("\n", counted, position), position
        where = f"{shown}, line {line}"
        try:
            value, position = _DECODER.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where}: not valid JSON ({error})") from None
        yield where, _object(value, where)
        position = _skip(text, position)
        if text[position : position + 1] == ",":
            position = _skip(text, position + 1)
        elif text[position : position + 1] != "]":
            raise UserError(f"{where}: a comma or ']' is missing after this object")
    if text[position + 1 :].strip():
        raise UserError(f"{shown}: text follows the closing ']'")


def _skip(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{where}: a row must be a JSON object with named columns")
    return value


def _separated(path: Path, shown: str, delimiter: str) -> Iterator[SourceRow]:
    reader = csv.reader(
        io.StringIO(_text(path, shown), newline=""), delimiter=delimiter, strict=True
    )
    header: list[str] | None = None
    begins = 1
    try:
        for cells in reader:
            where, begins = f"{shown}, line {begins}", reader.line_num + 1
            if not cells:
                continue
            if header is None:
                header = _header(cells, where)
                continue
            if len(cells) != len(header):
                raise UserError(
                    f"{where}: {len(cells)} fields, but the header names {len(header)}; "
                    "quote fields that hold the delimiter or a line break"
                )
            yield where, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise UserError(
            f"{shown}, line {reader.line_num}: malformed row ({error}); a field that holds a "
            "quotation mark stands in quotation marks, with the mark inside it doubled"
        ) from None


def _header(cells: list[str], where: str) -> list[str]:
    if len(set(cells)) != len(cells):
        raise UserError(f"{where}: the header names a column twice: {', '.join(cells)}")
    return cells


def _parquet(path: Path, shown: str) -> Iterator[SourceRow]:
    import pyarrow
    import pyarrow.parquet

    try:
        # Of this file alone: `read_table` takes folders such as `split=test` for a column
        table = pyarrow.parquet.ParquetFile(path).read()
        names, rows = table.column_names, table.to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        # Texts that are not UTF-8 and dates that no calendar has are ValueErrors
        raise UserError(f"{shown}: not a readable Parquet file ({error})") from None
    _header(names, shown)
    for number, row in enumerate(rows, start=1):
        yield f"{shown}, row {number}", row


READERS: dict[str, Callable[[Path, str], Iterator[SourceRow]]] = {
    ".jsonl": _json_lines,
    ".json": _json,
    ".csv": partial(_separated, delimiter=","),
    ".tsv": partial(_separated, delimiter="\t"),
    ".parquet": _parquet,
}
