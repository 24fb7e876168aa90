"""A task's prepared data as the stages after `prepare` read it.

Splits are read by name: no training stage can reach a test split through here without asking for
it. Refuses to know models and methods.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from skd.data.record import ExampleRow, read_examples
from skd.models.settings import Budget
from skd.results.data import DataCard
from skd.results.files import read_result

DATA = Path("data")
# Sets that are only tested stand apart, so that no training depends on them
TEST_SETS = Path("test_sets")


@dataclass(frozen=True)
class TaskData:
    """A task's rows, and how they are put to a model."""

    name: str
    # A name of `skd.tasks.TASKS`
    kind: str
    # Template with {source}
    prompt: str
    budget: Budget
    train: list[ExampleRow]
    validation: list[ExampleRow]


def training_data(name: str, budget: Budget) -> TaskData:
    """The training and validation rows of a task, and never its test rows."""
    card = read_card(DATA / name)
    return TaskData(
        name=name,
        kind=card.task,
        prompt=card.prompt,
        budget=budget,
        train=read_examples(DATA / name / "train.jsonl"),
        validation=read_examples(DATA / name / "validation.jsonl"),
    )


def read_card(folder: Path) -> DataCard:
    """The card of `data/<task>` or of `test_sets/<name>`."""
    stage = "prepare_tests" if folder.parent == TEST_SETS else f"prepare@{folder.name}"
    return read_result(folder / "card.json", DataCard, stage)


def test_rows(folder: Path) -> list[ExampleRow]:
    """The test rows of `data/<task>` or of `test_sets/<name>`."""
    return read_examples(folder / "test.jsonl")
