"""Methods across tasks: the share of the teacher's lead that is closed, and pairs of runs won.

The interval of the share is by a bootstrap that is stratified by task: within each task, seeds and
examples are drawn with replacement, the same examples for all models and the same seeds for models
that share theirs (Agarwal et al. 2021). Every draw takes an explicit seed, so a report can be made
again bit by bit. Knows no file, no metric and no verdict.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

from skd.report.verdicts.spread import Scores
from skd.report.verdicts.statistics import FEWEST_RUNS, LEVEL

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    value: float
    low: float | None  # None: too few runs to draw from
    high: float | None
    by_task: tuple[float, ...]


@dataclass(frozen=True)
class Drawn:
    """Of one model on one task: the means of its runs in each draw of examples, and its seeds."""

    runs: Floats  # [draws, seeds]; the first draw is the data as they are
    weights: Floats  # how often each run was drawn, as a share [draws, seeds]

    @property
    def means(self) -> Floats:
        """Of the drawn runs; their deviations widened to the width of a t interval.

        A draw of a handful of runs understates their spread (Hesterberg 2015, section 5.3).
        """
        seeds = self.runs.shape[1]
        if seeds == 1:
            return self.runs[:, 0]
        quantile = (1 + LEVEL) / 2
        widening = stdtrit(seeds - 1, quantile) / ndtri(quantile) * np.sqrt(seeds / (seeds - 1))
        centre = self.runs.mean(1)
        means: Floats = centre + widening * ((self.weights * self.runs).sum(1) - centre)
        return means


def closed_share(
    tasks: Sequence[Scores], method: str, start: str, teacher: str, *, resamples: int, seed: int
) -> Estimate | None:
    """Share of the teacher's lead over the start that a method closes, in percent.

    The mean over tasks; None where the lead is in doubt on one of them: were it 0, the share could
    be anything.
    """
    rng = np.random.default_rng(seed)
    shares = []
    for scores in tasks:
        drawn = _drawn(scores, (method, start, teacher), resamples, rng)
        base = drawn[start].means
        lead = drawn[teacher].means - base
        if np.quantile(lead, (1 - LEVEL) / 2) <= 0:
            return None
        shares.append(100 * (drawn[method].means - base) / lead)
    by_task = tuple(float(share[0]) for share in shares)
    means = np.mean(shares, axis=0)
    if min(len(scores[method]) for scores in tasks) < FEWEST_RUNS:
        return Estimate(float(means[0]), None, None, by_task)
    low, high = np.quantile(means[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(means[0]), float(low), float(high), by_task)


def pairs_won(tasks: Sequence[Scores], method: str, other: str) -> float:
    """Percent of the pairs of a run of each that `method` wins, ties half; the mean over tasks.

    By examples that every run has a score of. No interval: where one of them wins every pair,
    no resampling of the runs could show another outcome.
    """
    shares = []
    for scores in tasks:
        known = _known(scores, (method, other))
        ours, theirs = (
            np.array([*scores[name].values()], dtype=np.float64)[:, known].mean(1)
            for name in (method, other)
        )
        shares.append((1 + np.sign(ours[:, None] - theirs)).mean() / 2)
    return float(100 * np.mean(shares))


def _known(scores: Scores, names: Sequence[str]) -> NDArray[np.bool_]:
    """[examples] those that every run of these has a score of"""
    runs = [np.array([*scores[name].values()], dtype=np.float64) for name in names]
    known: NDArray[np.bool_] = ~np.isnan(np.concatenate(runs)).any(0)
    if not known.any():
        raise ValueError("no example has a score of every run")
    return known


def _drawn(
    scores: Scores, names: Sequence[str], resamples: int, rng: np.random.Generator
) -> dict[str, Drawn]:
    runs = {name: np.array([*scores[name].values()], dtype=np.float64) for name in names}
    known = _known(scores, names)
    examples = _shares(rng, resamples, int(known.sum()))
    seeds: dict[tuple[Hashable, ...], Floats] = {}
    result = {}
    for name in names:
        labels = tuple(scores[name])
        if labels not in seeds:
            seeds[labels] = _shares(rng, resamples, len(labels))
        result[name] = Drawn(examples @ runs[name][:, known].T, seeds[labels])
    return result


def _shares(rng: np.random.Generator, resamples: int, size: int) -> Floats:
    """Share of each of `size` items: all alike first, then of draws with replacement."""
    even = np.full((1, size), 1 / size)
    drawn = rng.multinomial(size, even[0], size=resamples) / size
    shares: Floats = np.concatenate([even, drawn])
    return shares
