"""Rows from wherever a task's data comes from: one reader per kind of source.

A reader returns records per split; sizes, cutting and merging are the same for all of them.
This module knows no prompt, no model and no output folder.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from skd.config import Data
from skd.data import procedural
from skd.data.record import Record

Reader = Callable[[Data, Path], dict[str, list[Record]]]

READERS: dict[str, Reader] = {
    "procedural": lambda data, root: procedural.load(data),
}


def load(data: Data, root: Path) -> dict[str, list[Record]]:
    """Records per split, before the checks between splits."""
    return READERS[data.source.kind](data, root)
