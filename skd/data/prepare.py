"""From records to a task's data folder: checks between splits, data card, atomic writing.

This module knows no tokenizer and no model; where the rows came from is `sources`' matter.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from skd.config import Data
from skd.data import cutting, sources
from skd.data.record import PRETRAIN, SPLITS, Record, normalised, start_of
from skd.errors import UserError
from skd.files import write_files
from skd.tasks import TASKS

SLOT = "{source}"
# A split that is named earlier keeps its row when `duplicates: drop` must choose.
PRECEDENCE = ("test", "validation", "train")


def prepare(data: Data, name: str, root: Path) -> dict[str, Any]:
    """Write `data/<name>` under `root` and return its card.

    Raises:
        UserError: bad rows, a source text in two splits, an empty split, a bad prompt.
    """
    prompt = _prompt(data, name)
    loaded, merged = sources.load(data, name, root)
    apart, found = disjoint(loaded, name, data.duplicates)
    splits = cutting.limit(apart, data)
    for split in SPLITS:
        if not splits.get(split):
            raise UserError(
                f"data.{name}: the {split} split is empty; give it rows or a smaller size elsewhere"
            )
    texts = {split: _lines(split, rows) for split, rows in splits.items()}
    hashes = {split: hashlib.sha256(text.encode()).hexdigest() for split, text in texts.items()}
    card = {
        "task": data.task,
        "prompt": prompt,
        "source": sources.facts(data, name),
        "license": data.license,
        "splits": {
            split: _statistics(rows) | {"sha256": hashes[split]} for split, rows in splits.items()
        },
        "duplicates": {"across_splits": found, "dropped": found, "merged": merged},
        "sha256": hashlib.sha256("".join(hashes[split] for split in texts).encode()).hexdigest(),
    }
    files = {f"{split}.jsonl": text for split, text in texts.items()}
    files["card.json"] = json.dumps(card, ensure_ascii=False, indent=2) + "\n"
    write_files(root / "data" / name, files)
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
    found = 0
    for split in PRECEDENCE:
        kept[split] = []
        for record in splits.get(split, []):
            key = normalised(record.source)
            owner, first = owners.setdefault(key, (split, record))
            if owner == split:
                kept[split].append(record)
                continue
            found += 1
            if duplicates == "error":
                raise UserError(
                    f"data.{name}: {split} ({record.origin}) repeats a source text of {owner} "
                    f"({first.origin}): {start_of(record.source)!r}; splits must not overlap. "
                    f"Remove the row, or set data.{name}.duplicates: drop"
                )
    ordered = {split: kept[split] for split in SPLITS}
    if PRETRAIN in splits:
        ordered[PRETRAIN] = splits[PRETRAIN]
    return ordered, found


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


def _statistics(records: list[Record]) -> dict[str, Any]:
    words: set[str] = set()
    for record in records:
        words.update(record.source.split(), record.target.split())
    return {
        "rows": len(records),
        "source_words": _quantiles(len(record.source.split()) for record in records),
        "target_words": _quantiles(len(record.target.split()) for record in records),
        "vocabulary": len(words),
    }


def _quantiles(counts: Iterable[int]) -> dict[str, int]:
    """Nearest-rank quantiles: each is a length that some row has."""
    ordered = sorted(counts)
    if not ordered:
        return {"p50": 0, "p90": 0, "max": 0}
    rank = {"p50": 0.5, "p90": 0.9, "max": 1.0}
    return {key: ordered[math.ceil(share * len(ordered)) - 1] for key, share in rank.items()}
