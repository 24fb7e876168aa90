"""Methods across tasks: the share of the teacher's lead that is closed, and who wins a new run.

Intervals by a bootstrap that is stratified by task: within each task, seeds and examples are drawn
with replacement, the same examples for all models and the same seeds for models that share theirs
(Agarwal et al. 2021). Every draw takes an explicit seed, so a report can be made again bit by bit.
Knows no file, no metric and no verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

from skd.report.verdicts.spread import Scores

LEVEL = 0.95
FEWEST_RUNS = 3  # that an interval is drawn from

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


Statistic = Callable[[dict[str, Drawn]], Floats]  # of one task: a value of each draw


def closed_share(
    tasks: Sequence[Scores], method: str, start: str, teacher: str, *, resamples: int, seed: int
) -> Estimate | None:
    """Share of the teacher's lead over the start that a method closes, in percent.

    The mean over tasks; None where the teacher does not lead on one of them.
    """

    def share(drawn: dict[str, Drawn]) -> Floats:
        base = drawn[start].means
        result: Floats = 100 * (drawn[method].means - base) / (drawn[teacher].means - base)
        return result

    for scores in tasks:
        above, below = (
            float(np.nanmean(np.array([*scores[name].values()], dtype=np.float64)))
            for name in (teacher, start)
        )
        if above <= below:
            return None
    return _stratified(tasks, (method, start, teacher), (method,), share, resamples, seed)


def improvement(
    tasks: Sequence[Scores], method: str, other: str, *, resamples: int, seed: int
) -> Estimate:
    """Probability that a new training run of `method` beats one of `other`, in percent.

    The share of pairs of runs that it wins, ties counted half; the mean over tasks.
    """

    def wins(drawn: dict[str, Drawn]) -> Floats:
        ours, theirs = drawn[method], drawn[other]
        won = (1 + np.sign(ours.runs[:, :, None] - theirs.runs[:, None, :])) / 2
        result: Floats = 100 * np.einsum("ri,rij,rj->r", ours.weights, won, theirs.weights)
        return result

    return _stratified(tasks, (method, other), (method, other), wins, resamples, seed)


def _stratified(
    tasks: Sequence[Scores],
    names: Sequence[str],
    trained: Sequence[str],  # those whose runs must be enough for an interval
    statistic: Statistic,
    resamples: int,
    seed: int,
) -> Estimate:
    rng = np.random.default_rng(seed)
    values = np.array([statistic(_drawn(scores, names, resamples, rng)) for scores in tasks])
    by_task = tuple(map(float, values[:, 0]))
    means = values.mean(0)
    fewest = min(len(scores[name]) for scores in tasks for name in trained)
    if fewest < FEWEST_RUNS:
        return Estimate(float(means[0]), None, None, by_task)
    low, high = np.quantile(means[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(means[0]), float(low), float(high), by_task)


def _drawn(
    scores: Scores, names: Sequence[str], resamples: int, rng: np.random.Generator
) -> dict[str, Drawn]:
    runs = {name: np.array([*scores[name].values()], dtype=np.float64) for name in names}
    known = ~np.any([np.isnan(r).any(0) for r in runs.values()], axis=0)
    if not known.any():
        raise ValueError("no example has a score of every run")
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
