"""A row of `data`: where a task's examples come from, and how many of them are used.

Knows no file format and no task.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from skd.settings import STRICT, Name, PathText, Positive, Seed

# Generators make as many as they are asked for, so that a slip of the hand would never end
Rows = Annotated[Positive, Field(le=10_000_000)]


@dataclass(frozen=True, config=STRICT)
class Columns:
    # Column of the input text
    source: str
    # Column of the training reference; None: the first of `references`
    target: str | None = None
    # More reference columns (text or list of text)
    references: list[str] = Field(default_factory=list)
    # Column of the final answer; it ends the target as "#### answer"
    answer: str | None = None
    # Column -> text; rows that hold it are left out and counted
    skip: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True, config=STRICT)
class Procedural:
    kind: Literal["procedural"]


@dataclass(frozen=True, config=STRICT)
class Files:
    kind: Literal["files"]
    columns: Columns
    # Path of a .jsonl, .json, .csv or .parquet file
    train: PathText | None = None
    # None: taken from the end of the shuffled train file
    validation: PathText | None = None
    # None: likewise
    test: PathText | None = None


@dataclass(frozen=True, config=STRICT)
class Hub:
    kind: Literal["hub"]
    # Commit: a branch moves
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
    # Known ids, columns and splits
    preset: (
        Literal["flores_plus", "dialogsum", "gsm8k", "svamp", "asdiv", "gsm_plus", "math"] | None
    ) = None
    # None: the preset's
    id: PathText | None = None
    config: str | None = None
    columns: Columns | None = None
    # Our split name -> theirs; a missing one is cut from train
    splits: dict[str, str] | None = None


Source = Annotated[Procedural | Files | Hub, Field(discriminator="kind")]


@dataclass(frozen=True, config=STRICT)
class Data:
    # Prompt, answer extraction, metrics
    task: Literal["translation", "summarization", "arithmetic"]
    source: Source
    # Rows; None: all there are (procedural sources need a number)
    train_size: Rows | None = None
    validation_size: Rows | None = None
    test_size: Rows | None = None
    # Of generation, shuffling and cutting; not an experiment seed
    seed: Seed = 0
    # A source text that stands in two splits
    duplicates: Literal["error", "drop"] = "error"
    # Template with {source}; None: the task's
    prompt: str | None = None
    # For the data card and the model card
    license: str | None = None
    # A task of experiment.tasks: its students and teacher are tested on this row, which trains none
    tests: Name | None = None

    def __post_init__(self) -> None:
        if isinstance(self.source, Files) and self.tests is None and self.source.train is None:
            raise ValueError(
                "source.train is missing; name a file to train on, or in `tests` the task whose "
                "models are tested on this row"
            )
        if isinstance(self.source, Files) and self.tests is not None and self.source.test is None:
            raise ValueError("source.test is missing; a row with `tests` is only tested")
        if isinstance(self.source, Procedural) and self.tests is not None:
            raise ValueError("a row with `tests` reads files or the Hub; this one is procedural")
