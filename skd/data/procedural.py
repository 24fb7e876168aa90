"""Splits from the generators: deterministic in `data.seed` and disjoint by construction.

Every split has its own random stream and the test split is drawn first, so that asking for
more training rows never changes a test row. This module knows no file and no prompt.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from skd.data.generators import arithmetic, summarization, translation
from skd.data.generators.example import Example
from skd.data.record import PRETRAIN, Record, normalised
from skd.data.settings import Data
from skd.errors import UserError

GENERATE: dict[str, Callable[[int, random.Random], Iterator[Example]]] = {
    "translation": translation.generate,
    "summarization": summarization.generate,
    "arithmetic": arithmetic.generate,
}
BASE_CORPUS: dict[str, Callable[[int, random.Random], Iterator[tuple[str, str]]]] = {
    "translation": translation.pretrain,
    "summarization": summarization.pretrain,
    "arithmetic": arithmetic.pretrain,
}
PRETRAIN_ROWS = 10_000  # at most; the base corpora are seen for one or two passes
PATIENCE = 20  # draws per wanted row before the generator is called exhausted


def load(data: Data, name: str) -> dict[str, list[Record]]:
    """`train`, `validation`, `test` and the base corpus `pretrain`.

    Raises:
        UserError: a size is not given, or the generator has fewer distinct sources.
    """
    sizes = {
        "test": data.test_size,
        "validation": data.validation_size,
        "train": data.train_size,
    }
    seen: set[str] = set()
    splits: dict[str, list[Record]] = {}
    for split, size in sizes.items():
        if size is None:
            raise UserError(f"data.{name}.{split}_size: a procedural source needs a number of rows")
        splits[split] = list(_distinct(data, name, split, size, seen))
    held_out = {normalised(row.source) for split in ("test", "validation") for row in splits[split]}
    rows = min(len(splits["train"]), PRETRAIN_ROWS)
    splits[PRETRAIN] = [
        Record(source, target, (target,), None, f"{PRETRAIN} row {number}")
        for number, (source, target) in enumerate(
            BASE_CORPUS[data.task](rows, _rng(data, PRETRAIN))
        )
        if normalised(source) not in held_out
    ]
    return splits


def _rng(data: Data, stream: str) -> random.Random:
    return random.Random(f"{data.seed}/{data.task}/{stream}")


def _distinct(data: Data, name: str, split: str, size: int, seen: set[str]) -> Iterator[Record]:
    made = 0
    for example in GENERATE[data.task](size * PATIENCE, _rng(data, split)):
        if made == size:
            return
        key = normalised(example.source)
        if key in seen:
            continue
        seen.add(key)
        made += 1
        yield Record(
            example.source,
            example.target,
            example.references,
            example.pattern,
            f"{split} row {made}",
            complete=example.pattern is None,
        )
    if made < size:
        raise UserError(
            f"data.{name}.{split}_size: the {data.task} generator gave only {made} distinct "
            f"sources of the {size} asked for; ask for fewer rows"
        )
