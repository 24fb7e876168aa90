"""What the stage `evaluate` writes: scores of models on splits, and every output."""

from __future__ import annotations

from pydantic.dataclasses import dataclass

from skd.results.took import Took
from skd.settings import STRICT

# The seed of a model that no experiment seed touches
ALL_SEEDS = "all"


@dataclass(frozen=True, config=STRICT)
class SplitScores:
    """The models of one method on one split."""

    split: str
    # Examples
    n: int
    # Metric -> library, version, settings: enough to compute the number again
    signatures: dict[str, str]
    # Metric -> why
    not_scored: dict[str, str]
    # Model -> seed or ALL_SEEDS -> metric -> percent
    models: dict[str, dict[str, dict[str, float]]]


@dataclass(frozen=True, config=STRICT)
class MethodScores:
    """metrics/evaluate/METHOD.json, and metrics/evaluate/starts.json for the starting points"""

    tasks: dict[str, SplitScores]
    test_sets: dict[str, SplitScores]


@dataclass(frozen=True, config=STRICT)
class OutputRecord:
    """A line of records/METHOD/SPLIT.jsonl and of fairness/TASK.jsonl: one output of one model."""

    model: str
    # None: a model that no experiment seed touches
    seed: int | None
    # Of the row
    id: str
    output: str
    # Whether an end-of-sequence token ended it within the budget
    stopped: bool
    tokens: int
    # Metric -> percent; not a number where the metric says nothing of this row
    scores: dict[str, float | None]
    # Of training, in records of `fairness`
    steps: int | None = None


@dataclass(frozen=True, config=STRICT)
class EvaluateResult:
    """metrics/evaluate.json"""

    took: Took
