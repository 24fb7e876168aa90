"""A task's prepared data as the stages after `prepare` read it.

Splits are read by name: no training stage can reach the test split through here without
asking for it.
"""

from __future__ import annotations

from pathlib import Path

from pipelines.stage import read_json, read_rows
from pipelines.training import Task
from skd.config import Params
from skd.encode import Row

DATA = Path("data")


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


def test_rows(name: str) -> list[Row]:
    return list(read_rows(DATA / name / "test.jsonl"))
