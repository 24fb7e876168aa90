"""One row of a split, whatever it came from, and the form its source is compared in.

Knows no task and no tokens, and of formats only the one that splits are written in.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired, cast

from typing_extensions import TypedDict  # pydantic reads typing's own from Python 3.12 on

from skd.errors import UserError
from skd.files import read_rows

SPLITS = ("train", "validation", "test")
PRETRAIN = "pretrain"


@dataclass(frozen=True, slots=True)
class Record:
    """`references` includes `target`.

    The set of all valid outputs is the references where they are `complete`, else what matches
    `valid_pattern`; without either it is unknown.
    """

    source: str
    target: str
    references: tuple[str, ...]
    valid_pattern: str | None
    origin: str  # where it was read, for messages: "train.jsonl, line 7"
    complete: bool = False


class ExampleRow(TypedDict):
    """A line of data/TASK/SPLIT.jsonl; rows of a training split have the first three fields."""

    id: str
    source: str
    target: str
    references: NotRequired[list[str]]
    # Whether the references are all valid outputs
    references_complete: NotRequired[bool]
    # A regular expression that every valid output matches, and nothing else; None: there is none
    valid_pattern: NotRequired[str | None]


def read_examples(path: Path) -> list[ExampleRow]:
    """The rows of a split. Raises `UserError` where the file or a text of a row is missing."""
    rows = read_rows(path)
    for number, row in enumerate(rows, 1):
        texts = [row.get(name) for name in ("id", "source", "target")]
        references = row.get("references", [])
        whole = isinstance(references, list)
        if not whole or not all(isinstance(text, str) for text in (*texts, *references)):
            raise UserError(
                f"{path}, line {number}: id, source, target and references must be texts; make it "
                "anew: `dvc repro`"
            )
    return cast(list[ExampleRow], rows)


def normalised(text: str) -> str:
    """Texts that differ in case, spacing or Unicode form alone are one content."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def start_of(text: str, width: int = 60) -> str:
    """The text's first words on one line, for messages."""
    flat = " ".join(text.split())
    return flat if len(flat) <= width else flat[: width - 1] + "…"
