"""How far a method's mean score spreads by chance: another training run, other examples.

The model is crossed: a score is the method's mean, plus what the seed does to all methods (rows and
order are drawn from it), plus what the example does to all, plus what seed and example do to this
method, plus the noise of one output. A difference of two methods keeps the last three:

    variance = (runs + noise / examples) / seeds + (method on example) / examples

The first bracket is the variance of a run's mean, which holds the outputs' noise already, so the
noise is taken out of the second (mean squares of a two-way layout). Seeds and examples are random,
methods are fixed. Numbers in, numbers out: knows no file, no metric and no verdict.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import fdtrc

from skd.report.verdicts.noise import Noise

Floats = NDArray[np.float64]
# Method -> seed (any name of it) -> score of each example
Scores = Mapping[str, Mapping[Any, ArrayLike]]

# A method whose runs spread more than the others' is left out of the pooled variance where an F
# test says so at the first level. At the second, its own variance counts for itself.
LEFT_OUT, ON_ITS_OWN = 0.001, 0.12
_ROUNDING = 1e-9  # of the largest score; smaller spreads are not told from none


@dataclass(frozen=True)
class Spread:
    """Variance of a run's mean, and its degrees of freedom."""

    variance: float
    freedom: int


@dataclass(frozen=True)
class Fit:
    """Means of the methods on one task, and all that their differences' variances need."""

    methods: tuple[str, ...]
    runs: NDArray[np.int64]  # [methods]
    means: Floats  # [methods]
    spread: Floats  # variance of a run's mean [methods]
    on_its_own: NDArray[np.bool_]  # whether that is the method's own, not the pooled one
    pool: Spread
    examples: int
    # Of the difference of two means owing to the examples: variance of the methods' differences
    # on an example without the outputs' noise, over the examples [methods, methods].
    by_examples: Floats
    per_example: Floats  # standard deviation of the seeds' mean difference [methods, methods]
    blocked: bool  # whether the seeds' common part is taken out
    rounding: float  # standard error that counts as none
    given: bool  # whether the examples are no draw: what is said holds for them alone

    def noise(self, method: str, other: str) -> Noise:
        first, second = (self.methods.index(name) for name in (method, other))
        pooled, own, inverse = self.rounding**2, 0.0, 0.0
        for place in (first, second):
            runs = int(self.runs[place])
            share = float(self.spread[place]) / runs
            if self.on_its_own[place]:
                own += share
                inverse += share / max(1, runs - 1)
            else:
                pooled += share
        return Noise(
            pooled=pooled,
            pooled_freedom=float(max(1, self.pool.freedom)),
            own=own,
            own_freedom=own / inverse if own else 1.0,
            examples=float(self.by_examples[first, second]),
            examples_freedom=float(max(1, self.examples - 1)),
        )


def fit(scores: Scores, *, given: bool = False) -> Fit:
    """The model of one task.

    given: a score is a run's mean over examples that are not drawn, one for each run.

    An example without a score (NaN) of any run of any method is left out for all, so that the
    differences of three methods add up.
    """
    methods = tuple(scores)
    seeds, blocked = _seeds(scores)
    runs = [
        np.array([scores[m][seed] for seed in chosen], dtype=np.float64)
        for m, chosen in zip(methods, seeds, strict=True)
    ]
    known = ~np.any([np.isnan(r).any(0) for r in runs], axis=0)
    if not known.any():
        raise ValueError("no example has a score of every run")
    runs = [r[:, known] for r in runs]
    rounding = _ROUNDING * (max(float(np.abs(r).max()) for r in runs) or 1.0)
    counts = np.array([len(r) for r in runs])
    means = [r.mean(1) for r in runs]
    spread, own, pool = _between_runs(means, blocked, rounding**2)
    by_examples, per_example = _between_examples(runs, blocked)
    return Fit(
        methods=methods,
        runs=counts,
        means=np.array([m.mean() for m in means]),
        spread=spread,
        on_its_own=own,
        pool=pool,
        examples=int(known.sum()),
        by_examples=by_examples,
        per_example=per_example,
        blocked=blocked,
        rounding=rounding,
        given=given,
    )


def _seeds(scores: Scores) -> tuple[list[list[Hashable]], bool]:
    """Which seeds of each method count, and whether they are blocks.

    Blocks need the same seeds of all methods. They took half of the variance in the runs that we
    have, so they are worth it as long as at least half of the largest number of runs stays;
    otherwise all runs count and the common part stays in the spread, which errs on the safe side.
    """
    first, *others = scores.values()
    common = [seed for seed in first if all(seed in runs for runs in others)]
    most = max(map(len, scores.values()))
    if others and len(common) >= max(2, most / 2):
        return [common for _ in scores], True
    return [list(runs) for runs in scores.values()], False


def _between_runs(
    means: Sequence[Floats], blocked: bool, least: float
) -> tuple[Floats, NDArray[np.bool_], Spread]:
    """Variance of a run's mean by method, whether it is the method's own, and the pooled one."""
    deviations = [m - m.mean() for m in means]
    methods = range(len(means))
    inside = list(methods)
    while len(inside) > max(2, len(means) // 2):
        doubts = {m: _suspicion(deviations, m, inside, blocked, least)[1] for m in inside}
        worst = min(doubts, key=lambda m: doubts[m])
        if doubts[worst] >= LEFT_OUT:
            break
        inside.remove(worst)
    pool = _pooled([deviations[m] for m in inside], blocked, least)
    spread = np.full(len(means), pool.variance)
    own = np.zeros(len(means), dtype=bool)
    for m in methods:
        variance, doubt = _suspicion(deviations, m, inside, blocked, least)
        if doubt < ON_ITS_OWN:
            own[m], spread[m] = True, max(variance, pool.variance)
    if len(means) == 2 and not blocked:  # nothing tells which of two spreads is the usual one
        alone = [_pooled([d], False, least) for d in deviations]
        if all(a.freedom for a in alone):
            own[:], spread[:] = True, [a.variance for a in alone]
    return spread, own, pool


def _pooled(deviations: Sequence[Floats], blocked: bool, least: float) -> Spread:
    """The variance within methods, as in an analysis of variance."""
    freedom = sum(map(len, deviations)) - len(deviations)
    squares = sum(d @ d for d in deviations)
    if blocked:
        common = np.mean(deviations, axis=0)
        squares -= len(deviations) * (common @ common)
        freedom -= len(common) - 1
    return Spread(max(least, float(squares) / freedom) if freedom else 0.0, freedom)


def _suspicion(
    deviations: Sequence[Floats], method: int, inside: Sequence[int], blocked: bool, least: float
) -> tuple[float, float]:
    """A method's own variance, and p of an F test that it is no larger than the others'."""
    others = [deviations[m] for m in inside if m != method]
    pool = _pooled(others, blocked, least)
    freedom = len(deviations[method]) - 1
    if not freedom or not pool.freedom:
        return pool.variance, 1.0
    series, of_block = deviations[method], 0.0
    if blocked:  # whose mean varies with the others
        series, of_block = series - np.mean(others, axis=0), 1 / len(others)
    found = max(least, float(series @ series) / freedom)
    p = fdtrc(freedom, pool.freedom, found / (pool.variance * (1 + of_block)))
    return found - of_block * pool.variance, float(p)


def _between_examples(runs: Sequence[Floats], blocked: bool) -> tuple[Floats, Floats]:
    """Of each pair: the variance by examples of the difference of means, and its raw deviation."""
    examples = runs[0].shape[1]
    if examples == 1:
        nothing = np.zeros((len(runs), len(runs)))
        return nothing, nothing
    columns = np.array([r.mean(0) for r in runs])
    raw = _of_differences(np.cov(columns).reshape(len(runs), len(runs)))
    outputs = [r - r.mean(1, keepdims=True) - r.mean(0) + r.mean() for r in runs]
    if blocked:
        flat = np.array([o.ravel() for o in outputs])
        noise = flat @ flat.T / (len(runs[0]) - 1) / len(runs[0])
    else:  # of a single run the noise is not known, and stays in
        noise = np.diag([float((o**2).sum()) / max(1, len(o) - 1) / len(o) for o in outputs])
    signal = raw - _of_differences(noise / (examples - 1))
    return np.maximum(0.0, signal) / examples, np.sqrt(raw)


def _of_differences(covariance: Floats) -> Floats:
    own = np.diag(covariance)
    differences: Floats = np.maximum(0.0, own[:, None] + own - 2 * covariance)
    return differences
