"""A task's prepared data as the stages after `prepare` read it.

Splits are read by name: no training stage can reach the test split through here without
asking for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipelines.params import Params
from skd.files import read_json, read_rows
from skd.models.encoding import Row
from skd.models.settings import Budget

DATA = Path("data")
TEST_SETS = Path("test_sets")  # of sets that are only tested, so no training depends on it


@dataclass(frozen=True)
class Task:
    """A task's rows and how they are put to a model."""

    name: str
    kind: str  # row of skd.tasks.TASKS
    prompt: str
    budget: Budget
    train: list[Row]
    validation: list[Row]


def training_task(params: Params, name: str) -> Task:
    """Train and validation rows; never the test split."""
    card = read_json(DATA / name / "card.json")
    return Task(
        name=name,
        kind=card["task"],
        prompt=card["prompt"],
        budget=params.budget[name],
        train=list(read_rows(DATA / name / "train.jsonl")),
        validation=list(read_rows(DATA / name / "validation.jsonl")),
    )


def test_rows(folder: Path) -> list[Row]:
    """Of `data/<task>` or of `test_sets/<name>`."""
    return list(read_rows(folder / "test.jsonl"))
