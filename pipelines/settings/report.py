"""What the report compares, within which margin methods are equal, and with how many resamples."""

from __future__ import annotations

from pydantic.dataclasses import dataclass

from skd.settings import STRICT, Name, Positive, PositiveNumber, Seed


@dataclass(frozen=True, config=STRICT)
class Report:
    # Of the bootstrap behind the intervals over all tasks
    resamples: Positive = 2000
    samples_per_task: Positive = 10
    # Compared with each of the others
    reference_method: Name = "skd"
    # Points of a metric. Methods are called equal where the difference surely lies within it, and
    # a cheaper method may be chosen where the best surely leads by less.
    margin: PositiveNumber = 2.0
    seed: Seed = 0
