"""Laws of the intervals and tests, on data whose truth is known."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from skd.report.verdicts.statistics import (
    bootstrap_interval,
    compare,
    effect_size,
    holm,
    pooled_spread,
    randomisation_p,
    runs_p,
    seed_interval,
)


def test_planted_null_is_rejected_in_about_five_percent():
    rng = np.random.default_rng(0)
    rejected = [
        randomisation_p(rng.normal(size=60), resamples=400, seed=i) < 0.05 for i in range(600)
    ]
    assert 0.025 < np.mean(rejected) < 0.08


def test_planted_effect_is_found_with_its_sign():
    rng = np.random.default_rng(1)
    base = rng.normal(50, 10, size=(3, 300))
    result = compare(base + rng.normal(2, 3, size=base.shape), base, resamples=1000, seed=0)
    assert result.p < 0.01
    assert 1 < result.difference < 3
    assert 0 < result.low < result.difference < result.high
    assert result.effect > 0.3
    mirrored = compare(base, base + 2, resamples=1000, seed=0)
    assert mirrored.difference == pytest.approx(-2)


def test_identical_systems_have_p_one_and_no_difference():
    scores = np.random.default_rng(2).uniform(0, 100, size=(3, 50))
    result = compare(scores, scores, resamples=200, seed=0)
    assert (result.difference, result.p, result.effect) == (0.0, 1.0, 0.0)


def test_p_is_never_zero_and_swapping_the_systems_keeps_it():
    difference = np.full(50, 3.0)
    assert randomisation_p(difference, resamples=99, seed=0) == 0.01
    noisy = np.random.default_rng(3).normal(0.2, 1, 80)
    assert randomisation_p(noisy, resamples=500, seed=1) == randomisation_p(
        -noisy, resamples=500, seed=1
    )


def test_randomisation_agrees_with_scipys_exact_permutation_test():
    difference = np.random.default_rng(4).normal(0.5, 1, 12)
    exact = stats.permutation_test(
        (difference, np.zeros(12)),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf,
    ).pvalue
    assert randomisation_p(difference, resamples=20_000, seed=0) == pytest.approx(exact, abs=0.01)


def test_seed_interval_is_scipys_t_interval_and_covers_in_simulation():
    values = [61.0, 63.5, 60.2]
    interval = seed_interval(values)
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert interval.mean - interval.half_width == pytest.approx(low)
    assert interval.mean + interval.half_width == pytest.approx(high)
    rng = np.random.default_rng(5)
    hits = 0
    for _ in range(1000):
        drawn = seed_interval(rng.normal(7, 2, 3))
        hits += abs(drawn.mean - 7) <= drawn.half_width
    assert 0.93 < hits / 1000 < 0.97


def test_one_seed_has_no_interval():
    assert seed_interval([4.0]).half_width is None


@pytest.mark.parametrize(("seeds", "spread"), [(1, 0.0), (3, 3.0), (8, 1.0)])
def test_bootstrap_interval_covers_the_true_difference_even_with_few_seeds(seeds, spread):
    """A plain percentile bootstrap of three runs covers in about 86 % of these cases."""
    rng = np.random.default_rng(6)

    def system(ability: np.ndarray) -> np.ndarray:
        runs = rng.normal(0, spread, size=(seeds, 1))
        return ability + runs + rng.normal(0, 5, size=(seeds, 80))

    hits = 0
    for repeat in range(200):
        ability = rng.normal(50, 10, size=80)
        low, high = bootstrap_interval(
            system(ability) + 1.5, system(ability), resamples=300, seed=repeat
        )
        hits += low <= 1.5 <= high
    assert hits / 200 > 0.9


def test_bootstrap_over_seeds_is_wider_than_over_examples_alone():
    rng = np.random.default_rng(7)
    scores = rng.normal(0, 1, size=(3, 400)) + np.array([[-3.0], [0.0], [3.0]])
    zeros = np.zeros((1, 400))
    low, high = bootstrap_interval(scores, zeros, resamples=1000, seed=0)
    alone = bootstrap_interval(scores.mean(0, keepdims=True), zeros, resamples=1000, seed=0)
    assert high - low > 5 * (alone[1] - alone[0])


def test_unknown_scores_are_left_out_in_pairs():
    first = np.array([[1.0, np.nan, 5.0, 2.0]])
    second = np.array([[0.0, 9.0, np.nan, 1.0]])
    result = compare(first, second, resamples=50, seed=0)
    assert (result.n, result.difference) == (2, 1.0)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_is_monotone_bounded_and_never_below_the_raw_values(p_values):
    corrected = holm(p_values)
    assert all(raw <= new <= 1 for raw, new in zip(p_values, corrected, strict=True))
    order = np.argsort(p_values, kind="stable")
    ranked = np.array(corrected)[order]
    assert np.all(np.diff(ranked) >= 0)
    assert corrected[order[0]] == min(1.0, len(p_values) * p_values[order[0]])


def test_holm_on_a_worked_case():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_effect_without_spread_is_infinite_with_the_sign():
    assert effect_size([2.0, 2.0]) == np.inf
    assert effect_size([-2.0, -2.0]) == -np.inf


def test_statistics_import_neither_torch_nor_transformers():
    code = (
        "import sys, skd.report.verdicts.statistics as s; "
        "sys.exit(bool({'torch', 'transformers', 'comet'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def constant(means: list[float], examples: int = 30) -> np.ndarray:
    """Runs that differ as a whole, with equal examples."""
    return np.array(means)[:, None] + np.zeros(examples)


def test_without_noise_of_examples_it_is_student_s_t_test() -> None:
    rng = np.random.default_rng(3)
    ours, theirs = rng.normal(1.0, 2.0, 4), rng.normal(0.0, 2.0, 4)
    spread = pooled_spread([constant(ours), constant(theirs)])
    expected = stats.ttest_ind(ours, theirs).pvalue
    assert runs_p(constant(ours), constant(theirs), spread) == pytest.approx(expected)


def test_without_spread_of_runs_it_is_the_paired_t_test_of_examples() -> None:
    rng = np.random.default_rng(4)
    ours, theirs = rng.normal(0.3, 1.0, 50), rng.normal(0.0, 1.0, 50)
    both = [np.stack([scores, scores, scores]) for scores in (ours, theirs)]
    expected = stats.ttest_rel(ours, theirs).pvalue
    assert runs_p(*both, pooled_spread(both)) == pytest.approx(expected)


def test_one_run_of_each_says_nothing_of_runs() -> None:
    assert pooled_spread([np.ones((1, 5)), np.zeros((1, 5))]) is None
    result = compare(np.ones((1, 5)), np.zeros((1, 5)), resamples=50, seed=0)
    assert result.p_runs is None
    assert result.larger_p == result.p


def test_other_systems_tell_the_spread_of_two() -> None:
    rng = np.random.default_rng(5)
    systems = [constant(rng.normal(0, 2.0, 3)) for _ in range(200)]
    spread = pooled_spread(systems)
    assert spread is not None
    assert spread.freedom == 400
    assert spread.variance == pytest.approx(4.0, rel=0.2)
    first, second = constant([0.0, 0.1, 0.2]), constant([6.0, 6.1, 6.2])
    alone = runs_p(first, second, pooled_spread([first, second]))
    pooled = runs_p(first, second, spread)
    assert alone is not None
    assert pooled is not None
    assert alone < pooled < 0.05  # two that happen to lie close prove less than they seem to


def test_a_whole_table_of_equal_systems_errs_rarely() -> None:
    """Ten systems of one distribution, runs 3 points apart: Holm keeps the table's error."""
    rng = np.random.default_rng(6)
    wrong = 0
    for _ in range(200):
        systems = [constant(rng.normal(50, 3.0, 3)) + rng.normal(0, 5, (3, 30)) for _ in range(10)]
        spread = pooled_spread(systems)
        p_values = [runs_p(systems[0], other, spread) or 0.0 for other in systems[1:]]
        wrong += min(holm(p_values)) < 0.05
    assert wrong <= 18  # 5 % of 200, and two standard deviations
