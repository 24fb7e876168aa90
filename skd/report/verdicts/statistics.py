"""Intervals and paired tests on scores. Numbers in, numbers out: knows no file and no metric.

Two sources of noise are kept apart: seeds (another training run) and examples (another test
set). Every random draw takes an explicit seed, so a report can be made again bit by bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri, stdtr, stdtrit

LEVEL = 0.95

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A mean over seeds; `half_width` is None where one seed leaves nothing to estimate from."""

    mean: float
    half_width: float | None
    n: int


@dataclass(frozen=True)
class Comparison:
    """First system minus second, in the unit of the scores."""

    difference: float
    low: float  # hierarchical bootstrap interval
    high: float
    p: float  # paired approximate randomisation over examples, two-sided
    p_runs: float | None  # t test over training runs and examples; None: one run each
    effect: float  # mean over standard deviation of the per-example differences (Cohen's d_z)
    n: int  # examples

    @property
    def larger_p(self) -> float:
        """Of the two tests: a difference must stand against both sources of noise."""
        return self.p if self.p_runs is None else max(self.p, self.p_runs)


@dataclass(frozen=True)
class Spread:
    """Variance of a system's mean score between training runs, and its degrees of freedom."""

    variance: float
    freedom: int


def seed_interval(values: Sequence[float], level: float = LEVEL) -> Interval:
    """Mean and Student t interval over independent seeds."""
    data = np.asarray(values, dtype=np.float64)
    mean = float(data.mean())
    if data.size < 2:
        return Interval(mean, None, int(data.size))
    error = data.std(ddof=1) / np.sqrt(data.size)
    quantile = stdtrit(data.size - 1, 0.5 + level / 2)
    return Interval(mean, float(quantile * error), int(data.size))


def compare(
    first: ArrayLike,
    second: ArrayLike,
    *,
    resamples: int,
    seed: int,
    spread: Spread | None = None,
) -> Comparison:
    """Compare two systems on the same examples.

    Args:
        first, second: per-example scores [seeds, examples]; columns are the same examples,
            the number of seeds may differ. Columns with a NaN on either side are left out.
        spread: between training runs, from all the systems compared; None: from these two.
    """
    ours, theirs = _complete(first, second)
    difference = ours.mean(0) - theirs.mean(0)  # [examples]
    low, high = bootstrap_interval(ours, theirs, resamples=resamples, seed=seed)
    return Comparison(
        difference=float(difference.mean()),
        low=low,
        high=high,
        p=randomisation_p(difference, resamples=resamples, seed=seed + 1),
        p_runs=runs_p(ours, theirs, spread or pooled_spread([ours, theirs])),
        effect=effect_size(difference),
        n=int(difference.size),
    )


def bootstrap_interval(
    first: ArrayLike, second: ArrayLike, *, resamples: int, seed: int, level: float = LEVEL
) -> tuple[float, float]:
    """Hierarchical percentile bootstrap of the mean difference.

    Each resample draws seeds with replacement, for each system on its own, and then examples,
    the same ones for both systems and all seeds: they were all scored on one test set.
    Resampling a handful of seeds understates their spread; the deviations of the seeds are
    widened so that the interval is as wide as a t interval (expanded percentile interval,
    Hesterberg 2015, section 5.3).
    """
    systems = _complete(first, second)
    ours, theirs, examples = _draws(
        seed, resamples, (len(systems[0]), len(systems[1]), systems[0].shape[1])
    )
    freedom = sum(len(scores) - 1 for scores in systems)
    upper = (1 + level) / 2
    widening = float(stdtrit(freedom, upper) / ndtri(upper)) if freedom else 1.0
    means = [
        _widened(scores, widening).T @ seeds.T
        for scores, seeds in zip(systems, (ours, theirs), strict=True)
    ]
    draws = np.einsum("re,er->r", examples, means[0] - means[1])
    low, high = np.quantile(draws, [1 - upper, upper])
    return float(low), float(high)


def randomisation_p(difference: ArrayLike, *, resamples: int, seed: int) -> float:
    """Two-sided paired approximate randomisation test of a zero mean difference.

    Under the null the two systems' outputs on an example may be swapped, which flips the sign
    of the difference. The observed assignment is counted as one draw, so p is never 0
    (Noreen 1989).
    """
    data = np.asarray(difference, dtype=np.float64)
    observed = abs(data.sum())
    sums = np.abs(_signs(seed, resamples, data.size) @ data)
    slack = 1e-9 * max(np.abs(data).sum(), 1e-300)  # equal sums in another order stay equal
    return float((1 + np.count_nonzero(sums >= observed - slack)) / (resamples + 1))


def pooled_spread(systems: Iterable[ArrayLike]) -> Spread | None:
    """The variance within systems, as in an analysis of variance; None: one seed each.

    Three seeds of two systems leave 4 degrees of freedom, those of ten systems 20, so pooling
    tells a difference from chance with far fewer seeds. `systems`: [seeds, examples] each.
    """
    means = [np.nanmean(np.atleast_2d(np.asarray(s, dtype=np.float64)), axis=1) for s in systems]
    freedom = sum(len(values) - 1 for values in means)
    if freedom == 0:
        return None
    squares = sum(float(((values - values.mean()) ** 2).sum()) for values in means)
    return Spread(squares / freedom, freedom)


def runs_p(first: ArrayLike, second: ArrayLike, spread: Spread | None) -> float | None:
    """Two-sided t test of the mean difference: another training run and another test set.

    The variance of the difference is that of the runs, the larger of the pooled one and the
    two systems' own, plus that of the examples; degrees of freedom after Satterthwaite.
    """
    if spread is None:
        return None
    ours, theirs = _complete(first, second)
    pooled = spread.variance * (1 / len(ours) + 1 / len(theirs))
    own = sum(float(s.mean(1).var(ddof=1)) / len(s) for s in (ours, theirs) if len(s) > 1)
    runs = max(pooled, own)
    difference = ours.mean(0) - theirs.mean(0)
    count = difference.size
    examples = float(difference.var(ddof=1)) / count if count > 1 else 0.0
    mean = abs(float(difference.mean()))
    if runs + examples == 0:
        return float(mean == 0)
    uncertain = runs**2 / spread.freedom + examples**2 / max(1, count - 1)
    freedom = (runs + examples) ** 2 / uncertain
    return float(2 * stdtr(freedom, -mean / np.sqrt(runs + examples)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: p-values that keep the family-wise error rate."""
    order = np.argsort(p_values, kind="stable")
    corrected = [1.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, (len(p_values) - rank) * p_values[index])
        corrected[index] = min(1.0, running)
    return corrected


def effect_size(difference: ArrayLike) -> float:
    """Cohen's d_z: mean over standard deviation; 0 for equal systems, infinite without spread."""
    data = np.asarray(difference, dtype=np.float64)
    mean = float(data.mean())
    spread = float(data.std(ddof=1)) if data.size > 1 else 0.0
    if spread > 0:
        return mean / spread
    return 0.0 if mean == 0 else float(np.copysign(np.inf, mean))


def seeds_needed(first: ArrayLike, second: ArrayLike, *, power: float = 0.8) -> int | None:
    """Seeds per system for a two-sided t test of the seeds' means to see the observed difference.

    From the pooled variance of the seeds; None where no number up to `MOST_SEEDS` would do, or
    where one seed leaves no variance. Systems that differ without variance need 2.
    """
    means = [scores.mean(1) for scores in _complete(first, second)]
    freedom = sum(len(values) - 1 for values in means)
    if freedom == 0:
        return None
    variance = sum(float(((values - values.mean()) ** 2).sum()) for values in means) / freedom
    difference = abs(float(means[0].mean() - means[1].mean()))
    enough = (difference > 0) & (difference >= np.sqrt(variance) * _least_differences(power))
    return 2 + int(enough.argmax()) if enough.any() else None


MOST_SEEDS = 1000


@lru_cache(maxsize=8)
def _least_differences(power: float) -> Floats:
    """What 2, 3, … `MOST_SEEDS` seeds per system can see, in standard deviations of a seed."""
    seeds = np.arange(2, MOST_SEEDS + 1)
    freedom = 2 * seeds - 2
    quantiles = stdtrit(freedom, (1 + LEVEL) / 2) + stdtrit(freedom, power)
    least: Floats = quantiles * np.sqrt(2 / seeds)
    return least


def _widened(scores: Floats, factor: float) -> Floats:
    """Seed deviations [seeds, examples] without the small-sample bias, times `factor`."""
    seeds = len(scores)
    if seeds == 1:
        return scores
    mean = scores.mean(0)
    shift = (scores - mean).mean(1, keepdims=True)  # of a whole run; noise within it stays
    widened: Floats = scores + shift * (factor * np.sqrt(seeds / (seeds - 1)) - 1)
    return widened


# A report compares hundreds of pairs with the same draws; making them anew was most of its time.
@lru_cache(maxsize=8)
def _draws(seed: int, resamples: int, sizes: tuple[int, ...]) -> list[Floats]:
    """Shares of each of `sizes` items, drawn in turn: [resamples, size] each."""
    rng = np.random.default_rng(seed)
    return [_shares(rng, resamples, size) for size in sizes]


@lru_cache(maxsize=8)
def _signs(seed: int, resamples: int, size: int) -> Floats:
    """[resamples, size] of -1 and 1."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2, size=(resamples, size), dtype=np.int8) * 2.0 - 1.0


def _shares(rng: np.random.Generator, resamples: int, size: int) -> Floats:
    """Share of each of `size` items in a draw with replacement [resamples, size]."""
    return rng.multinomial(size, np.full(size, 1 / size), size=resamples) / size


def _complete(first: ArrayLike, second: ArrayLike) -> tuple[Floats, Floats]:
    ours = np.atleast_2d(np.asarray(first, dtype=np.float64))
    theirs = np.atleast_2d(np.asarray(second, dtype=np.float64))
    if ours.shape[1] != theirs.shape[1]:
        raise ValueError(f"{ours.shape[1]} and {theirs.shape[1]} examples cannot be paired")
    known = ~(np.isnan(ours).any(0) | np.isnan(theirs).any(0))
    if not known.any():
        raise ValueError("no example has a score on both sides")
    return ours[:, known], theirs[:, known]
