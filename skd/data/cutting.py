"""What happens to rows after reading, whatever their source: merging, cutting, limiting.

All of it is deterministic in `data.seed`. Rows with one normalised source text are one
content and never part. This module knows no file, no Hub and no prompt.
"""

from __future__ import annotations

import random
from dataclasses import replace

from skd.data.record import SPLITS, Record, normalised
from skd.data.settings import Data
from skd.errors import UserError

CUT = ("test", "validation")  # in this order, from the end of the shuffled contents
SHARE = 10  # a split that is cut without a size takes one row in so many


def merge(splits: dict[str, list[Record]]) -> tuple[dict[str, list[Record]], int]:
    """Unite equal sources inside the evaluation splits: one row with all the references.

    The first row gives the target. Training rows stay apart, each with its own target.
    Returns the splits and how many rows were merged away.
    """
    united = {
        split: rows if split not in CUT else [_unite(group) for group in _contents(rows)]
        for split, rows in splits.items()
    }
    return united, sum(len(rows) - len(united[split]) for split, rows in splits.items())


def cut(splits: dict[str, list[Record]], data: Data, name: str) -> dict[str, list[Record]]:
    """Take the missing evaluation splits from the training rows.

    Raises:
        UserError: nothing would be left for training.
    """
    missing = [split for split in CUT if split not in splits]
    if not missing:
        return splits
    contents = _contents(splits["train"])
    random.Random(f"{data.seed}/cut").shuffle(contents)
    sizes = {split: _wanted(data, split) or max(1, len(contents) // SHARE) for split in missing}
    if sum(sizes.values()) >= len(contents):
        raise UserError(
            f"data.{name}: the training data has {len(contents)} distinct sources; cutting "
            + " and ".join(f"{size} for {split}" for split, size in sizes.items())
            + " leaves none to train on; give smaller sizes or more rows"
        )
    parts = dict(splits)
    for split, size in sizes.items():
        taken, contents = contents[-size:], contents[:-size]
        parts[split] = [row for group in taken for row in group]
    parts["train"] = [row for group in contents for row in group]
    return parts


def limit(splits: dict[str, list[Record]], data: Data) -> dict[str, list[Record]]:
    """At most the wanted rows of each split: a random choice, in the rows' own order.

    A larger size keeps every row of a smaller one.
    """
    return {
        split: _choose(rows, _wanted(data, split), random.Random(f"{data.seed}/limit/{split}"))
        for split, rows in splits.items()
    }


def _choose(rows: list[Record], size: int | None, rng: random.Random) -> list[Record]:
    if size is None or size >= len(rows):
        return rows
    order = list(range(len(rows)))
    rng.shuffle(order)
    return [rows[index] for index in sorted(order[:size])]


def _wanted(data: Data, split: str) -> int | None:
    sizes = (data.train_size, data.validation_size, data.test_size)
    return dict(zip(SPLITS, sizes, strict=True)).get(split)


def _contents(rows: list[Record]) -> list[list[Record]]:
    groups: dict[str, list[Record]] = {}
    for row in rows:
        groups.setdefault(normalised(row.source), []).append(row)
    return list(groups.values())


def _unite(group: list[Record]) -> Record:
    first = group[0]
    references = dict.fromkeys(text for row in group for text in row.references)
    return replace(first, references=tuple(references))
