"""A mean over seeds with its interval, and Holm's correction. Numbers in, numbers out.

Knows no file and no metric. What tells methods apart is in `spread` and `families`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

LEVEL = 0.95
# That an interval is drawn from: of two, a t interval is 9 times as wide as they lie apart
FEWEST_RUNS = 3


@dataclass(frozen=True)
class Interval:
    """A mean over seeds; `half_width` is None where seeds are too few to estimate it from."""

    mean: float
    half_width: float | None
    n: int

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Of a score in percent: the interval as far as it lies within 0 and 100."""
        if self.half_width is None:
            return None
        return max(0.0, self.mean - self.half_width), min(100.0, self.mean + self.half_width)


def seed_interval(values: Sequence[float], level: float = LEVEL) -> Interval:
    """Mean and Student t interval over independent seeds."""
    data = np.asarray(values, dtype=np.float64)
    mean = float(data.mean())
    if data.size < FEWEST_RUNS:
        return Interval(mean, None, int(data.size))
    error = data.std(ddof=1) / np.sqrt(data.size)
    quantile = stdtrit(data.size - 1, 0.5 + level / 2)
    return Interval(mean, float(quantile * error), int(data.size))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: p-values that keep the family-wise error rate."""
    order = np.argsort(p_values, kind="stable")
    corrected = [1.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, (len(p_values) - rank) * p_values[index])
        corrected[index] = min(1.0, running)
    return corrected
