"""Laws of the estimates across tasks."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from skd.report.verdicts.across import closed_share, pairs_won
from skd.report.verdicts.spread import Scores

RESAMPLES = 400


def task(
    rng: np.random.Generator,
    levels: dict[str, float],
    runs: int = 5,
    examples: int = 80,
    spread: float = 1.0,
) -> Scores:
    """Runs 0, 1, … of each level; the teacher has one."""
    ability = rng.normal(0, 10, examples)
    return {
        name: {
            seed: level + ability + rng.normal(0, spread) + rng.normal(0, 4, examples)
            for seed in (range(runs) if name != "teacher" else ["all"])
        }
        for name, level in levels.items()
    }


def exact(levels: dict[str, float], runs: int = 4) -> Scores:
    return {name: {s: np.full(6, level) for s in range(runs)} for name, level in levels.items()}


def test_the_share_is_exact_where_nothing_varies_and_the_mean_over_tasks() -> None:
    tasks = [
        exact({"a": 55.0, "start": 40.0, "teacher": 100.0}),
        exact({"a": 80.0, "start": 60.0, "teacher": 80.0}),
    ]
    found = closed_share(tasks, "a", "start", "teacher", resamples=50, seed=0)
    assert found is not None
    assert found.by_task == pytest.approx((25.0, 100.0))
    assert (found.value, found.low, found.high) == pytest.approx((62.5, 62.5, 62.5))


def test_the_start_closes_nothing_and_the_teacher_all() -> None:
    rng = np.random.default_rng(0)
    tasks = [task(rng, {"start": 40.0, "teacher": 90.0}) for _ in range(3)]
    for name, value in (("start", 0.0), ("teacher", 100.0)):
        found = closed_share(tasks, name, "start", "teacher", resamples=50, seed=0)
        assert found is not None
        assert found.value == pytest.approx(value)


def test_units_of_a_task_change_nothing() -> None:
    levels = {"a": 60.0, "start": 40.0, "teacher": 90.0}
    scores = task(np.random.default_rng(1), levels)
    other = {m: {s: 3.0 + r / 7.0 for s, r in runs.items()} for m, runs in scores.items()}
    first, second = (
        closed_share([s], "a", "start", "teacher", resamples=100, seed=5) for s in (scores, other)
    )
    assert first is not None
    assert second is not None
    assert (first.low, first.value, first.high) == pytest.approx(
        (second.low, second.value, second.high)
    )


def test_the_interval_of_the_share_covers_the_truth() -> None:
    rng = np.random.default_rng(2)
    levels = {"a": 60.0, "start": 40.0, "teacher": 90.0}
    hits = 0
    for repeat in range(150):
        tasks = [task(rng, levels, runs=3, spread=3.0) for _ in range(3)]
        found = closed_share(tasks, "a", "start", "teacher", resamples=RESAMPLES, seed=repeat)
        assert found is not None
        hits += found.low <= 40.0 <= found.high
    assert hits / 150 > 0.9


def test_a_teacher_that_does_not_lead_leaves_no_share() -> None:
    tasks = [exact({"a": 55.0, "start": 40.0, "teacher": 40.0})]
    assert closed_share(tasks, "a", "start", "teacher", resamples=10, seed=0) is None


def test_a_lead_that_may_be_nothing_leaves_no_share() -> None:
    """Otherwise a share of it could be anything: 560 % (-1052 to 1080)."""
    rng = np.random.default_rng(9)
    levels = {"a": 39.4, "start": 38.2, "teacher": 38.7}
    assert all(
        closed_share([task(rng, levels)], "a", "start", "teacher", resamples=RESAMPLES, seed=0)
        is None
        for _ in range(5)
    )


def test_pairs_won_are_those_of_a_rank_test() -> None:
    rng = np.random.default_rng(3)
    scores = task(rng, {"a": 51.0, "b": 50.0}, runs=6)
    first, second = ([float(np.mean(r)) for r in scores[name].values()] for name in "ab")
    expected = stats.mannwhitneyu(first, second).statistic / 36
    assert pairs_won([scores], "a", "b") == pytest.approx(100 * expected)
    assert pairs_won([scores], "b", "a") == pytest.approx(100 * (1 - expected))
    other = exact({"a": 1.0, "b": 0.0})
    assert pairs_won([scores, other], "a", "b") == pytest.approx(50 * expected + 50)


def test_equal_runs_win_half() -> None:
    assert pairs_won([exact({"a": 50.0, "b": 50.0})], "a", "b") == 50.0


def test_few_runs_have_no_interval_and_unscored_examples_do_not_count() -> None:
    levels = {"a": 51.0, "b": 50.0, "start": 20.0, "teacher": 80.0}
    scores = task(np.random.default_rng(5), levels, runs=2)
    found = closed_share([scores], "a", "start", "teacher", resamples=20, seed=0)
    assert found is not None
    assert (found.low, found.high) == (None, None)
    holed = {m: {s: r.copy() for s, r in runs.items()} for m, runs in scores.items()}
    holed["a"][1][3] = np.nan
    kept = {m: {s: np.delete(r, 3) for s, r in runs.items()} for m, runs in scores.items()}
    assert pairs_won([holed], "a", "b") == pairs_won([kept], "a", "b")
    shares = [
        closed_share([each], "a", "start", "teacher", resamples=20, seed=0)
        for each in (holed, kept)
    ]
    assert shares[0] == shares[1]


def test_the_same_seed_draws_the_same_interval() -> None:
    scores = task(np.random.default_rng(6), {"a": 51.0, "start": 20.0, "teacher": 80.0})
    made = [closed_share([scores], "a", "start", "teacher", resamples=50, seed=7) for _ in range(2)]
    assert made[0] == made[1]
