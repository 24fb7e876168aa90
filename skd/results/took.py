"""What every stage says of itself: the seconds that it took, and where."""

from __future__ import annotations

from pydantic import Field
from pydantic.dataclasses import dataclass

from skd.settings import STRICT


@dataclass(frozen=True, config=STRICT)
class Took:
    """What a stage took, and where: the one part of its metrics that differs between reruns."""

    # Seconds since its process began, imports included, by a clock that no date moves
    seconds: float
    # Versions of packages, device and machine; empty where a stage runs no model
    environment: dict[str, str] = Field(default_factory=dict)
    # Processor seconds of `pipelines.calibration.fixed_work` there; None: not timed
    fixed_work: float | None = None
