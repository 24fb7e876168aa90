"""What the stages that prepare data say of it: the data card."""

from __future__ import annotations

from pydantic.dataclasses import dataclass

from skd.data.settings import Source
from skd.results.took import Took
from skd.settings import STRICT


@dataclass(frozen=True, config=STRICT)
class Lengths:
    """Nearest-rank quantiles of words: each is a length that some row has."""

    p50: int
    p90: int
    max: int


@dataclass(frozen=True, config=STRICT)
class SplitFacts:
    rows: int
    source_words: Lengths
    target_words: Lengths
    # Distinct words
    vocabulary: int
    sha256: str


@dataclass(frozen=True, config=STRICT)
class Duplicates:
    # Rows whose source text another split has
    across_splits: int
    # Of them left out
    dropped: int
    # Rows that became a reference of another row
    merged: int


@dataclass(frozen=True, config=STRICT)
class DataCard:
    """data/TASK/card.json and test_sets/NAME/card.json"""

    # A name of `skd.tasks.TASKS`
    task: str
    # Of a set that is only tested: the task whose models are tested on it
    tests: str | None
    # Template with {source}
    prompt: str
    # As in `data`, a preset's id spelt out
    source: Source
    license: str | None
    splits: dict[str, SplitFacts]
    duplicates: Duplicates
    # Rows that `columns.skip` left out
    skipped: int
    # Over the splits' own hashes
    sha256: str


@dataclass(frozen=True, config=STRICT)
class PrepareResult:
    """metrics/prepare/TASK.json"""

    took: Took
    card: DataCard


@dataclass(frozen=True, config=STRICT)
class PrepareTestsResult:
    """metrics/prepare_tests.json"""

    took: Took
    # By name
    test_sets: dict[str, DataCard]
