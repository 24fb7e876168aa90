"""Comparisons of one task's methods that are judged together, so that a whole table errs rarely.

Planned comparisons (a reference against others) by Dunnett's distribution, the remaining pairs by
Tukey's, each method's distance from the best by Hsu's intervals. A pair that was planned keeps its
comparison in the table of all pairs. Knows no file, no metric and no Markdown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from skd.report.verdicts.comparison import (
    FEWEST_RUNS,
    FEWEST_RUNS_OF_TWO,
    Comparison,
    Family,
)
from skd.report.verdicts.noise import Noise
from skd.report.verdicts.simultaneous import Against, Among
from skd.report.verdicts.spread import Fit

PLANNED = 0.8  # of the error, for the planned comparisons; the remaining pairs have the rest


@dataclass(frozen=True)
class ToBest:
    """A method's mean minus the best of the others' means (Hsu's constrained interval)."""

    method: str
    low: float
    high: float

    @property
    def may_be_best(self) -> bool:
        return self.high > 0

    def not_inferior(self, margin: float) -> bool:
        """Whether the best leads by less than `margin`: what may be chosen for being cheap."""
        return self.low > -margin


Pair = tuple[str, str]


def planned(fit: Fit, families: Mapping[str, Sequence[str]]) -> dict[str, list[Comparison]]:
    """Reference -> its comparisons with the others, all of them corrected together.

    Several references divide the error by the number of their comparisons.
    """
    total = sum(map(len, families.values()))
    every = len(fit.methods) * (len(fit.methods) - 1) // 2
    share = 1.0 if total == every else PLANNED
    return {
        reference: _judged(fit, [(reference, o) for o in others], share * len(others) / total)
        for reference, others in families.items()
        if others
    }


def all_pairs(fit: Fit, known: Iterable[Comparison] = ()) -> list[Comparison]:
    """Each method against each later one; the planned comparisons stand as they are."""
    found = {frozenset((c.method, c.other)): c for c in known}
    pairs = list(combinations(fit.methods, 2))
    rest = [pair for pair in pairs if frozenset(pair) not in found]
    share = 1 - PLANNED if found else 1.0
    found |= {frozenset((c.method, c.other)): c for c in _judged(fit, rest, share)}
    return [
        c if c.method == method else c.mirrored()
        for method, other in pairs
        for c in [found[frozenset((method, other))]]
    ]


def with_best(fit: Fit) -> list[ToBest]:
    """For choosing: how far each method may lie from the best of the others.

    The true best, whichever it is, is compared with all others by a one-sided test with it as the
    reference. A method that this test excludes for some other cannot be the best.
    """
    names = fit.methods
    leads = {
        (c.method, c.other): c
        for name in names
        for c in _judged(fit, [(name, other) for other in names if other != name], 1.0, False)
    }
    highs = {
        m: min((leads[m, o].high for o in names if o != m), default=float("inf")) for m in names
    }
    candidates = [m for m in names if highs[m] > 0]
    result = []
    for m in names:
        rivals = [c for c in candidates if c != m]
        low = min((-leads[rival, m].high for rival in rivals), default=0.0)
        result.append(ToBest(m, min(0.0, low), max(0.0, highs[m])))
    return result


def typical_lead(comparisons: Iterable[Comparison], runs: int | None = None) -> float:
    """The smallest lead that a table finds: the median over its comparisons."""
    return float(np.median([c.smallest_lead(runs) for c in comparisons]))


def _judged(
    fit: Fit, pairs: Sequence[Pair], share: float, two_sided: bool = True
) -> list[Comparison]:
    """Comparisons that are corrected together: of one method with others, or of all pairs."""
    places = {name: place for place, name in enumerate(fit.methods)}
    noises = {pair: fit.noise(*pair) for pair in pairs}
    hides = len(fit.methods) > 2
    least = FEWEST_RUNS if hides else FEWEST_RUNS_OF_TWO
    decidable = [
        pair
        for pair in pairs
        if min(fit.runs[places[name]] for name in pair) >= least
        and fit.pool.freedom
        and (fit.examples > 1 or fit.given)
    ]
    family = None
    if decidable:
        pooled = [noises[pair] for pair in decidable if not noises[pair].own]
        freedom = min((n.freedom for n in pooled), default=float(fit.pool.freedom))
        runs = min(int(fit.runs[places[name]]) for pair in decidable for name in pair)
        shape = _shape(fit, decidable, noises, two_sided)
        family = Family(shape, freedom, runs, share, hides)
    judged = set(decidable)
    return [
        _compared(fit, pair, noises[pair], family if pair in judged else None) for pair in pairs
    ]


def _shape(
    fit: Fit, pairs: Sequence[Pair], noises: Mapping[Pair, Noise], two_sided: bool
) -> Against | Among:
    reference = pairs[0][0]
    if any(method != reference for method, _ in pairs):
        return Among(len({name for pair in pairs for name in pair}))
    place = fit.methods.index(reference)
    own = fit.spread[place] / fit.runs[place]
    shares = [(own + noises[pair].examples / 2) / noises[pair].variance for pair in pairs]
    return Against.of(shares, two_sided=two_sided)


def _compared(fit: Fit, pair: Pair, noise: Noise, family: Family | None) -> Comparison:
    first, second = (fit.methods.index(name) for name in pair)
    difference = float(fit.means[first] - fit.means[second])
    deviation = float(fit.per_example[first, second])
    if deviation:
        effect = difference / deviation
    else:
        effect = float(np.copysign(np.inf, difference)) if abs(difference) > fit.rounding else 0.0
    return Comparison(*pair, difference, noise, family, effect, fit.examples)
