"""The comparison of two methods on one task: one p, one interval and one word, from one model.

The word is read off the interval alone, so the two cannot disagree. Knows no file, no metric and
no Markdown; `skd.report.verdicts.families` makes comparisons that are judged together.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from scipy.special import nctdtrinc, stdtr, stdtrit

from skd.report.verdicts.noise import Noise
from skd.report.verdicts.simultaneous import Against, Among, Joint, critical_value

ALPHA = 0.05  # p below it and an interval without zero are the same thing
POWER = 0.8
MOST_SEEDS = 100
# Chance that a table of equal, equally stable methods holds a false verdict, with many runs. With
# few runs it spends the share 1 - `HIDDEN_RUNS` / runs of it: a method that is far less stable than
# the others can look stable in few runs, so that two decide nothing in a table. Two methods alone
# have no others to hide among; there it makes up for the approximate degrees of freedom.
# benchmarks/verdicts.py shows what comes out.
ERROR = 0.04
HIDDEN_RUNS, HIDDEN_RUNS_OF_TWO = 2.2, 0.5
FEWEST_RUNS, FEWEST_RUNS_OF_TWO = 3, 2  # that a verdict rests on
# A method with a spread of its own must also differ by a t test on its own few runs at this level.
OWN_ERROR = 0.01


class Word(StrEnum):
    BETTER = "better"
    EQUAL = "equal"  # within the margin
    WORSE = "worse"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Family:
    """What comparisons that are judged together have in common."""

    shape: Against | Among
    freedom: float  # of the comparisons' noise, the smallest
    runs: int  # of a method, the fewest that a verdict rests on
    share: float  # of the error
    hides: bool  # whether an unstable method could hide among others

    def error(self, runs: int) -> float:
        hidden = HIDDEN_RUNS if self.hides else HIDDEN_RUNS_OF_TWO
        return ERROR * self.share * max(0.0, 1 - hidden / runs)

    def joint(self, runs: int) -> Joint:
        return Joint(self.shape, self.freedom * (runs - 1) / (self.runs - 1))

    def own_error(self, runs: int) -> float:
        return max(OWN_ERROR, self.error(runs))


@dataclass(frozen=True)
class Comparison:
    """`method` minus `other`, in the unit of the scores."""

    method: str
    other: str
    difference: float
    noise: Noise
    family: Family | None  # None: too little is known for any verdict
    effect: float  # difference over the standard deviation of the examples' differences (d_z)
    examples: int

    @property
    def half_width(self) -> float:
        if self.family is None:
            return float("inf")
        return self._bound(self.family, self.family.runs) * float(np.sqrt(self.noise.variance))

    @property
    def low(self) -> float:
        return self.difference - self.half_width

    @property
    def high(self) -> float:
        return self.difference + self.half_width

    @property
    def p(self) -> float:
        """Corrected for its family; below `ALPHA` where the interval leaves out zero."""
        family = self.family
        if family is None or not (error := family.error(family.runs)):
            return 1.0
        t = abs(self.difference) / float(np.sqrt(self.noise.variance))
        p = family.joint(family.runs).tail(t) / error
        if self.noise.own:
            alone = 2 * stdtr(self.noise.freedom, -t)
            p = max(p, float(alone) / family.own_error(family.runs))
        return min(1.0, p * ALPHA)

    def word(self, margin: float = 0.0) -> Word:
        """`margin`, in the unit of the scores: differences below it count for nothing."""
        if self.low > 0:
            return Word.BETTER
        if self.high < 0:
            return Word.WORSE
        return Word.EQUAL if -margin < self.low and self.high < margin else Word.UNDECIDED

    def not_inferior(self, margin: float) -> bool:
        return self.low > -margin

    def smallest_lead(self, runs: int | None = None) -> float:
        """What `POWER` of the repetitions with so many runs of each method would find.

        By the estimated variances; None: with as many runs as there are.
        """
        family = self.family
        if family is None:
            return float("inf")
        runs = runs or family.runs
        if not family.error(runs):
            return float("inf")
        noise = self._noise(family, runs)
        # The noncentral t distribution that lies above the bound in `POWER` of the cases.
        shift = nctdtrinc(noise.freedom, 1 - POWER, self._bound(family, runs))
        return float(shift * np.sqrt(noise.variance))

    @property
    def seeds_needed(self) -> int | None:
        """Fewest runs of each method whose smallest lead is the observed difference.

        None where `MOST_SEEDS` would not do, or where nothing is known.
        """
        fewest, enough = FEWEST_RUNS_OF_TWO, MOST_SEEDS
        if not self.smallest_lead(enough) <= abs(self.difference):
            return None
        while fewest < enough:  # more runs see smaller leads
            middle = (fewest + enough) // 2
            if self.smallest_lead(middle) <= abs(self.difference):
                enough = middle
            else:
                fewest = middle + 1
        return enough

    def mirrored(self) -> Comparison:
        return replace(
            self,
            method=self.other,
            other=self.method,
            difference=-self.difference,
            effect=-self.effect,
        )

    def _noise(self, family: Family, runs: int) -> Noise:
        return self.noise.with_runs(runs / family.runs, (runs - 1) / (family.runs - 1))

    def _bound(self, family: Family, runs: int) -> float:
        """How many standard errors a verdict takes."""
        bound = critical_value(family.joint(runs), family.error(runs))
        if self.noise.own:
            freedom = self._noise(family, runs).freedom
            bound = max(bound, float(stdtrit(freedom, 1 - family.own_error(runs) / 2)))
        return bound
