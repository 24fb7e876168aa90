"""Critical values of several comparisons judged together: the multivariate t distribution.

Two shapes of a family: one method against others (Dunnett) and each against each (Tukey). Both are
integrals over one normal variable and over the estimated spread, done here by the trapezoid rule,
which is exact to many digits for such smooth integrands. Knows no scores.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import chdtri, ndtr, stdtrit

Floats = NDArray[np.float64]

_NORMAL = np.linspace(-8, 8, 65)
_NORMAL_WEIGHTS = np.exp(-(_NORMAL**2) / 2) / np.exp(-(_NORMAL**2) / 2).sum()
_SCALES = 64
# Above this the integrand has edges that the grid is too coarse for; a lower correlation asks for
# a larger critical value.
_MOST_SHARED = 0.95
_STEP = 0.05  # of the shared variance; families with the same steps have the same critical values
_BELOW = 0.999  # leaves room for rounding where a bound is known


@dataclass(frozen=True)
class Against:
    """One method against others.

    Each comparison shares the reference's variance: `shared` holds (share of the variance of a
    difference that is the reference's, number of such comparisons). Equal variances: 1/2.
    """

    shared: tuple[tuple[float, int], ...]
    two_sided: bool = True

    @classmethod
    def of(cls, shares: Iterable[float], *, two_sided: bool = True) -> Against:
        steps = (min(round(share / _STEP) * _STEP, _MOST_SHARED) for share in shares)
        return cls(tuple(sorted(Counter(steps).items())), two_sided)

    @property
    def comparisons(self) -> int:
        return sum(count for _, count in self.shared)

    def within(self, bounds: Floats) -> Floats:
        """Probability that all standardised differences stay below `bounds` [n]."""
        result = np.ones((len(bounds), len(_NORMAL)))
        for share, count in self.shared:
            common, alone = np.sqrt(share) * _NORMAL, np.sqrt(1 - share)
            below = ndtr((bounds[:, None] - common) / alone)
            if self.two_sided:
                below -= ndtr((-bounds[:, None] - common) / alone)
            result *= below**count
        inside: Floats = result @ _NORMAL_WEIGHTS
        return inside


@dataclass(frozen=True)
class Among:
    """Each of `methods` against each other, with equal variances."""

    methods: int
    two_sided: ClassVar[bool] = True

    @property
    def comparisons(self) -> int:
        return self.methods * (self.methods - 1) // 2

    def within(self, bounds: Floats) -> Floats:
        """The lowest mean lies at one place, the others within the range above it."""
        width = np.sqrt(2) * bounds[:, None]
        others = (ndtr(_NORMAL + width) - ndtr(_NORMAL)) ** (self.methods - 1)
        inside: Floats = self.methods * (others @ _NORMAL_WEIGHTS)
        return inside


@dataclass(frozen=True)
class Joint:
    """A family's shape with the degrees of freedom of its spread."""

    shape: Against | Among
    freedom: float

    def tail(self, bound: float) -> float:
        """Probability that chance alone takes any of the family's t values past `bound`."""
        scales, weights = self._spread
        inside = float(self.shape.within(bound * scales) @ weights)
        return max(0.0, 1.0 - inside)

    @cached_property
    def _spread(self) -> tuple[Floats, Floats]:
        return _estimated_spread(self.freedom)


@lru_cache(maxsize=4096)
def critical_value(joint: Joint, error: float) -> float:
    """The bound that chance passes with probability `error`; infinite where there is no error.

    It lies between that of one comparison and Bonferroni's of all.
    """
    if error <= 0:
        return float("inf")
    tail = error / 2 if joint.shape.two_sided else error
    one, all_of_them = stdtrit(joint.freedom, [1 - tail, 1 - tail / joint.shape.comparisons])
    low, high = _BELOW * one, all_of_them / _BELOW
    return float(brentq(lambda bound: joint.tail(bound) - error, low, high, rtol=1e-9))


@lru_cache(maxsize=4096)
def _estimated_spread(freedom: float) -> tuple[Floats, Floats]:
    """Estimated over true standard deviation, and how probable each is."""
    low, high = np.sqrt(chdtri(freedom, [1 - 1e-10, 1e-10]) / freedom)
    logarithms = np.linspace(np.log(low), np.log(high), _SCALES)
    scales = np.exp(logarithms)
    # Of ln s, where freedom · s² is chi-square distributed.
    density: Floats = np.exp(freedom * (logarithms - (scales**2 - 1) / 2))
    return scales, density / density.sum()
