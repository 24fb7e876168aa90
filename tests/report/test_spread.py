"""Laws of the crossed model: what it takes for the noise of a difference of means."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from skd.report.verdicts.spread import Scores, fit

NOTHING = pytest.approx(0.0, abs=1e-12)


def labelled(systems: np.ndarray | list[np.ndarray]) -> Scores:
    """Scores [seeds, examples] of each method, named m0, m1, …"""
    return {f"m{i}": dict(enumerate(scores)) for i, scores in enumerate(systems)}


def table(
    rng: np.random.Generator,
    methods: int = 5,
    seeds: int = 4,
    examples: int = 60,
    block: float = 2.0,
    run: float | np.ndarray = 1.0,
    own: float = 5.0,
    output: float = 8.0,
) -> np.ndarray:
    runs = rng.normal(0, block, (1, seeds, 1))
    runs = runs + rng.normal(size=(methods, seeds, 1)) * np.reshape(run, (-1, 1, 1))
    by_example = rng.normal(50, 20, examples) + rng.normal(0, own, (methods, 1, examples))
    return runs + by_example + rng.normal(0, output, (methods, seeds, examples))


def test_the_variance_is_that_of_a_two_way_layout_of_the_differences() -> None:
    """Two methods: (mean square of seeds + of examples - of the rest) / number of scores."""
    scores = table(np.random.default_rng(0), methods=2, own=9.0)
    difference = scores[0] - scores[1]
    seeds, examples = difference.shape
    by_seed, by_example = difference.mean(1), difference.mean(0)
    rest = difference - by_seed[:, None] - by_example + difference.mean()
    squares = (
        examples * by_seed.var(ddof=1)
        + seeds * by_example.var(ddof=1)
        - (rest**2).sum() / (seeds - 1) / (examples - 1)
    )
    noise = fit(labelled(scores)).noise("m0", "m1")
    assert noise.variance == pytest.approx(squares / difference.size)


def test_the_expected_variance_is_the_true_one_and_outputs_count_once() -> None:
    rng = np.random.default_rng(1)
    found, differences = [], []
    for _ in range(2000):
        fitted = fit(labelled(table(rng, methods=2, seeds=3, run=1.0, own=5.0, output=20.0)))
        found.append(fitted.noise("m0", "m1").variance)
        differences.append(fitted.means[0] - fitted.means[1])
    true = 2 * (1.0 / 3 + 25.0 / 60 + 400.0 / 3 / 60)
    assert np.var(differences) == pytest.approx(true, rel=0.15)
    assert np.mean(found) == pytest.approx(true, rel=0.05)


def test_what_a_seed_does_to_all_methods_is_no_noise() -> None:
    scores = table(np.random.default_rng(2))
    moved = scores + np.random.default_rng(3).normal(0, 50, (1, 4, 1))
    still, shaken = (fit(labelled(s)) for s in (scores, moved))
    assert shaken.blocked
    assert shaken.noise("m0", "m1").variance == pytest.approx(still.noise("m0", "m1").variance)


def test_a_constant_and_the_methods_order_change_nothing() -> None:
    scores = table(np.random.default_rng(4))
    first, second = labelled(scores), labelled(scores + 17.0)
    backwards = dict(reversed(first.items()))
    expected = fit(first).noise("m1", "m3")
    for other in (fit(second).noise("m1", "m3"), fit(backwards).noise("m3", "m1")):
        assert other.variance == pytest.approx(expected.variance)
        assert other.freedom == pytest.approx(expected.freedom)


def test_an_unstable_method_leaves_the_pool_and_keeps_its_own_spread() -> None:
    rng = np.random.default_rng(5)
    spreads = np.array([1.0] * 9 + [12.0])
    scores = table(rng, methods=10, seeds=8, run=spreads, output=1.0)
    fitted = fit(labelled(scores))
    assert fitted.on_its_own[9]
    assert fitted.pool.variance == pytest.approx(1.0, rel=0.4)
    assert fitted.pool.freedom == 8 * 7
    assert fitted.spread[9] > 30
    assert fitted.noise("m0", "m9").freedom < 10 < fitted.noise("m0", "m1").freedom


def test_the_larger_of_pool_and_own_counts() -> None:
    rng = np.random.default_rng(6)
    for _ in range(30):
        fitted = fit(labelled(table(rng, methods=8, run=rng.uniform(0.5, 6.0, 8))))
        assert np.all(fitted.spread >= fitted.pool.variance)
        assert np.all(fitted.spread[~fitted.on_its_own] == fitted.pool.variance)


def test_few_equal_methods_are_left_out_of_the_pool() -> None:
    rng = np.random.default_rng(7)
    left_out = [fit(labelled(table(rng, methods=8))).pool.freedom < 7 * 3 for _ in range(200)]
    assert np.mean(left_out) < 0.04


def test_methods_with_other_seeds_are_compared_over_the_common_ones() -> None:
    scores = table(np.random.default_rng(8), methods=3, seeds=5)
    whole = labelled(scores)
    more = {"m0": whole["m0"], "m1": whole["m1"], "m2": {s: whole["m2"][s] for s in (0, 2, 3)}}
    fitted = fit(more)
    assert fitted.blocked
    assert fitted.runs.tolist() == [3, 3, 3]
    assert fitted.means[0] == pytest.approx(scores[0, [0, 2, 3]].mean())


def test_too_few_common_seeds_are_no_blocks_and_all_runs_count() -> None:
    scores = table(np.random.default_rng(9), methods=3, seeds=5)
    whole = labelled(scores)
    others = {
        "m0": whole["m0"],
        "m1": whole["m1"],
        "m2": {s + 4: r for s, r in whole["m2"].items()},
    }
    fitted = fit(others)
    assert not fitted.blocked
    assert fitted.runs.tolist() == [5, 5, 5]
    within = scores.mean(2).var(axis=1, ddof=1)
    assert fitted.pool.variance == pytest.approx(within.mean())


def test_two_methods_of_other_seeds_are_welchs_case() -> None:
    rng = np.random.default_rng(10)
    first, second = rng.normal(0, 1, 5), rng.normal(0, 4, 3)
    runs = [np.repeat(values[:, None], 20, 1) for values in (first, second)]
    others = {"m0": dict(enumerate(runs[0])), "m1": {s + 10: r for s, r in enumerate(runs[1])}}
    noise = fit(others).noise("m0", "m1")
    assert noise.variance == pytest.approx(stats.sem(first) ** 2 + stats.sem(second) ** 2)


def test_examples_without_a_score_are_left_out_for_all() -> None:
    scores = table(np.random.default_rng(11), methods=3, examples=30)
    holed = scores.copy()
    holed[1, 2, 7] = np.nan
    holed[0, 0, 21] = np.nan
    kept = np.delete(scores, [7, 21], axis=2)
    assert fit(labelled(holed)).examples == 28
    np.testing.assert_array_equal(fit(labelled(holed)).means, fit(labelled(kept)).means)
    holed[2] = np.nan
    with pytest.raises(ValueError, match="no example"):
        fit(labelled(holed))


def test_without_any_spread_there_is_no_noise() -> None:
    scores = np.broadcast_to(np.array([70.0, 40.0, 40.0])[:, None, None], (3, 4, 25))
    assert fit(labelled(scores)).noise("m0", "m1").variance == NOTHING
    assert not fit(labelled(scores)).on_its_own.any()


def test_scores_that_are_all_nought_are_no_error() -> None:
    nothing = {method: {seed: np.zeros(5) for seed in range(3)} for method in "abc"}
    model = fit(nothing)
    assert model.means.tolist() == [0.0, 0.0, 0.0]
    assert np.isfinite(model.noise("a", "b").variance)
