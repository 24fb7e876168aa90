"""From records to a task's data folder: checks between splits, data card, atomic writing.

This module knows no tokenizer and no model; where the rows came from is `sources`' matter.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from skd.data import cutting, sources
from skd.data.record import PRETRAIN, SPLITS, Record, normalised, start_of
from skd.data.settings import Data
from skd.errors import UserError
from skd.files import write_files
from skd.results.data import DataCard, Duplicates, Lengths, SplitFacts
from skd.results.files import text_of
from skd.tasks import TASKS

SLOT = "{source}"
TEST_SETS = "test_sets"  # folder of the sets that are only tested: no training depends on it
# A split that is named earlier keeps its row when `duplicates: drop` must choose.
PRECEDENCE = ("test", "validation", "train")


def prepare(data: Data, name: str, root: Path) -> DataCard:
    """Write `data/<name>` under `root` and return its card.

    Raises:
        UserError: bad rows, a source text in two splits, an empty split, a bad prompt.
    """
    prompt = _prompt(data, name)
    loaded = sources.load(data, name, root)
    apart, repeated = disjoint(loaded.splits, name, data.duplicates)
    splits = cutting.limit(apart, data)
    for split in SPLITS:
        if not splits.get(split):
            raise UserError(
                f"data.{name}: the {split} split is empty; give it rows or a smaller size elsewhere"
            )
    duplicates = Duplicates(across_splits=repeated, dropped=repeated, merged=loaded.merged)
    return _write(root / "data" / name, data, prompt, splits, duplicates, loaded.skipped)


def prepare_test(
    data: Data, name: str, prompt: str, trained: Mapping[str, Sequence[str]], root: Path, sets: Path
) -> DataCard:
    """Write the folder `name` in `sets` and return its card.

    Args:
        prompt: of the task whose models are tested; the row's own wins.
        trained: split -> source texts that those models, or their choice, have seen.
        root: what the paths of files are relative to.

    Raises:
        UserError: bad rows, a source text that was trained on, an empty split, a bad prompt.
    """
    loaded = sources.load(data, name, root)
    unseen, repeated = _unseen(loaded.splits["test"], data, name, trained)
    splits = cutting.limit({"test": unseen}, data)
    if not splits["test"]:
        raise UserError(f"data.{name}: the test split is empty; give it rows")
    duplicates = Duplicates(across_splits=repeated, dropped=repeated, merged=loaded.merged)
    own = prompt if data.prompt is None else _prompt(data, name)
    return _write(sets / name, data, own, splits, duplicates, loaded.skipped)


def _unseen(
    rows: list[Record], data: Data, name: str, trained: Mapping[str, Sequence[str]]
) -> tuple[list[Record], int]:
    """The rows whose source text no split in `trained` has, and how many have one.

    Raises:
        UserError: `duplicates` is `error`; names the row, the split and the text's start.
    """
    seen = {normalised(text): split for split, texts in trained.items() for text in texts}
    leaks = [row for row in rows if normalised(row.source) in seen]
    if leaks and data.duplicates == "error":
        first = leaks[0]
        raise UserError(
            f"data.{name}: {first.origin} repeats a source text of the {data.tests} "
            f"{seen[normalised(first.source)]} split: {start_of(first.source)!r}; a test set must "
            f"hold nothing that its models saw ({len(leaks)} of {len(rows)} rows do). Remove the "
            f"rows, or set data.{name}.duplicates: drop"
        )
    return [row for row in rows if normalised(row.source) not in seen], len(leaks)


def _write(
    folder: Path,
    data: Data,
    prompt: str,
    splits: dict[str, list[Record]],
    duplicates: Duplicates,
    skipped: int,
) -> DataCard:
    """Write the folder's splits and card; returns the card."""
    texts = {split: _lines(split, rows) for split, rows in splits.items()}
    hashes = {split: hashlib.sha256(text.encode()).hexdigest() for split, text in texts.items()}
    card = DataCard(
        task=data.task,
        tests=data.tests,
        prompt=prompt,
        source=sources.named(data, folder.name),
        license=data.license,
        splits={split: _split_facts(rows, hashes[split]) for split, rows in splits.items()},
        duplicates=duplicates,
        skipped=skipped,
        sha256=hashlib.sha256("".join(hashes[split] for split in texts).encode()).hexdigest(),
    )
    files = {f"{split}.jsonl": text for split, text in texts.items()}
    files["card.json"] = text_of(card)
    write_files(folder, files)
    return card


def disjoint(
    splits: dict[str, list[Record]], name: str, duplicates: str
) -> tuple[dict[str, list[Record]], int]:
    """Splits that share no source text, and how many shared rows were dropped for that.

    A shared row stays in the test split before the validation split before the
    training split.

    Raises:
        UserError: `duplicates` is `error`; names both rows and the text's start.
    """
    owners: dict[str, tuple[str, Record]] = {}
    kept: dict[str, list[Record]] = {}
    repeated = 0
    for split in PRECEDENCE:
        kept[split] = []
        for record in splits.get(split, []):
            key = normalised(record.source)
            owner, first = owners.setdefault(key, (split, record))
            if owner == split:
                kept[split].append(record)
                continue
            repeated += 1
            if duplicates == "error":
                raise UserError(
                    f"data.{name}: {split} ({record.origin}) repeats a source text of {owner} "
                    f"({first.origin}): {start_of(record.source)!r}; splits must not overlap. "
                    f"Remove the row, or set data.{name}.duplicates: drop"
                )
    ordered = {split: kept[split] for split in SPLITS}
    if PRETRAIN in splits:
        ordered[PRETRAIN] = splits[PRETRAIN]
    return ordered, repeated


def _prompt(data: Data, name: str) -> str:
    if data.prompt is None:
        return TASKS[data.task].prompt
    if SLOT not in data.prompt:
        raise UserError(
            f"data.{name}.prompt: {data.prompt!r} lacks {SLOT}; put it where the input belongs"
        )
    return data.prompt


def _lines(split: str, records: list[Record]) -> str:
    evaluated = split in ("validation", "test")
    lines = []
    for number, record in enumerate(records):
        row: dict[str, Any] = {
            "id": f"{split}-{number}",
            "source": record.source,
            "target": record.target,
        }
        if evaluated:
            row |= {
                "references": record.references,
                "references_complete": record.complete,
                "valid_pattern": record.valid_pattern,
            }
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    return "".join(lines)


def _split_facts(records: list[Record], sha256: str) -> SplitFacts:
    words: set[str] = set()
    for record in records:
        words.update(record.source.split(), record.target.split())
    return SplitFacts(
        rows=len(records),
        source_words=_quantiles(len(record.source.split()) for record in records),
        target_words=_quantiles(len(record.target.split()) for record in records),
        vocabulary=len(words),
        sha256=sha256,
    )


def _quantiles(counts: Iterable[int]) -> Lengths:
    """Nearest-rank quantiles: each is a length that some row has."""
    ordered = sorted(counts)
    if not ordered:
        return Lengths(0, 0, 0)
    return Lengths(*(ordered[math.ceil(share * len(ordered)) - 1] for share in (0.5, 0.9, 1.0)))
