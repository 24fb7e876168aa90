"""The variance of a difference of two means, by source. Knows neither scores nor estimates."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Noise:
    """The variance of one difference of means, by source, with degrees of freedom."""

    pooled: float  # between runs, by the variance that the methods share
    pooled_freedom: float
    own: float  # between runs of the methods that have a variance of their own
    own_freedom: float
    examples: float
    examples_freedom: float

    @property
    def variance(self) -> float:
        return self.pooled + self.own + self.examples

    @property
    def freedom(self) -> float:
        """Mean of the inverse degrees of freedom, weighted by variance (Cochran).

        Satterthwaite's weights are the squares; where runs have few degrees of freedom and happen
        to lie close, they trust the examples' many too much.
        """
        inverse = (
            self.pooled / self.pooled_freedom
            + self.own / self.own_freedom
            + self.examples / self.examples_freedom
        )
        return self.variance / inverse

    def with_runs(self, factor: float, growth: float) -> Noise:
        """The same methods with `factor` times the runs and `growth` times their freedom."""
        return Noise(
            self.pooled / factor,
            self.pooled_freedom * growth,
            self.own / factor,
            self.own_freedom * growth,
            self.examples,
            self.examples_freedom,
        )
