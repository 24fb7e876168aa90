"""What the report compares, and with how many resamples."""

from __future__ import annotations

from pydantic.dataclasses import dataclass

from skd.settings import STRICT, Name, Positive


@dataclass(frozen=True, config=STRICT)
class Report:
    resamples: Positive = 2000
    samples_per_task: Positive = 10
    # Compared with each of the others
    reference_method: Name = "skd"
    seed: int = 0
