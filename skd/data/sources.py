"""Rows from wherever a task's data comes from: one reader per kind of source.

A reader returns records per split; merging and cutting are the same for all of them.
This module knows no prompt, no model and no output folder.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from skd.data import columns, cutting, hub, procedural, tables
from skd.data.record import SPLITS, Record
from skd.data.settings import Columns, Data, Files, Hub, Source

Splits = dict[str, list[Record]]


class Loaded(NamedTuple):
    splits: Splits
    merged: int  # rows that became a reference of another row
    skipped: int  # rows that `columns.skip` left out


def _procedural(data: Data, name: str, _root: Path) -> tuple[Splits, int]:
    return procedural.load(data, name), 0


def _files(data: Data, _name: str, root: Path) -> tuple[Splits, int]:
    assert isinstance(data.source, Files)
    source = data.source
    paths = dict(zip(SPLITS, (source.train, source.validation, source.test), strict=True))
    tables_ = {
        split: tables.read(root / path, path)
        for split, path in paths.items()
        if path is not None and split in wanted(data)
    }
    return _records(tables_, source.columns, data)


def _hub(data: Data, name: str, _root: Path) -> tuple[Splits, int]:
    assert isinstance(data.source, Hub)
    rows, named = hub.read(data.source, name, wanted(data))
    return _records(rows, named, data)


def _records(
    rows: Mapping[str, list[tables.SourceRow]], named: Columns, data: Data
) -> tuple[Splits, int]:
    kept = {split: columns.records(table, named, data.task) for split, table in rows.items()}
    return kept, sum(len(rows[split]) - len(examples) for split, examples in kept.items())


def wanted(data: Data) -> tuple[str, ...]:
    """The splits that are read; the first must be there."""
    return SPLITS if data.tests is None else ("test",)


READERS: dict[str, Callable[[Data, str, Path], tuple[Splits, int]]] = {
    "procedural": _procedural,
    "files": _files,
    "hub": _hub,
}


def named(data: Data, name: str) -> Source:
    """The source for the data card, with a preset's id spelt out."""
    if isinstance(data.source, Hub):
        return dataclasses.replace(data.source, id=hub.resolve(data.source, name).id)
    return data.source


def load(data: Data, name: str, root: Path) -> Loaded:
    """Records of `train`, `validation`, `test` (and `pretrain`); of `test` where `data.tests`.

    Paths are relative to `root`. Splits may still overlap and are not yet limited in size.

    Raises:
        UserError: rows that cannot be read, or a source that cannot be reached.
    """
    splits, skipped = READERS[data.source.kind](data, name, root)
    whole = cutting.cut(splits, data, name) if data.tests is None else splits
    return Loaded(*cutting.merge(whole), skipped)
