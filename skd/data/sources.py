"""Rows from wherever a task's data comes from: one reader per kind of source.

A reader returns records per split; merging and cutting are the same for all of them.
This module knows no prompt, no model and no output folder.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from skd.config import Data, Files, Hub, plain
from skd.data import columns, cutting, hub, procedural, tables
from skd.data.record import SPLITS, Record

Splits = dict[str, list[Record]]


def _procedural(data: Data, name: str, _root: Path) -> Splits:
    return procedural.load(data, name)


def _files(data: Data, _name: str, root: Path) -> Splits:
    assert isinstance(data.source, Files)
    source = data.source
    paths = dict(zip(SPLITS, (source.train, source.validation, source.test), strict=True))
    return {
        split: columns.records(tables.read(root / path, path), source.columns, data.task)
        for split, path in paths.items()
        if path is not None
    }


def _hub(data: Data, name: str, _root: Path) -> Splits:
    assert isinstance(data.source, Hub)
    rows, named = hub.read(data.source, name)
    return {split: columns.records(table, named, data.task) for split, table in rows.items()}


READERS: dict[str, Callable[[Data, str, Path], Splits]] = {
    "procedural": _procedural,
    "files": _files,
    "hub": _hub,
}


def facts(data: Data, name: str) -> dict[str, Any]:
    """The source for the data card, a preset's id spelt out."""
    found: dict[str, Any] = plain(data.source)
    if isinstance(data.source, Hub):
        found["id"] = hub.resolve(data.source, name).id
    return found


def load(data: Data, name: str, root: Path) -> tuple[Splits, int]:
    """Records of `train`, `validation`, `test` (and `pretrain`), and how many were merged.

    Paths are relative to `root`. Splits may still overlap and are not yet limited in size.

    Raises:
        UserError: rows that cannot be read, or a source that cannot be reached.
    """
    whole = cutting.cut(READERS[data.source.kind](data, name, root), data, name)
    return cutting.merge(whole)
