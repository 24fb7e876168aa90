"""One row of a split, whatever it came from, and the form its source is compared in.

This module knows no file format, no task and no tokens.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

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


def normalised(text: str) -> str:
    """Texts that differ in case, spacing or Unicode form alone are one content."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def start_of(text: str, width: int = 60) -> str:
    """The text's first words on one line, for messages."""
    flat = " ".join(text.split())
    return flat if len(flat) <= width else flat[: width - 1] + "…"
