"""Laws of the verdicts of one task, on tables whose truth is known."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from skd.report.verdicts.comparison import ALPHA, ERROR, MOST_SEEDS, Comparison, Word
from skd.report.verdicts.families import PLANNED, all_pairs, planned, typical_lead, with_best
from skd.report.verdicts.spread import Scores, fit
from tests.report.test_spread import labelled, table


def star(scores: Scores, reference: str = "m0") -> list[Comparison]:
    others = [name for name in scores if name != reference]
    return planned(fit(scores), {reference: others})[reference]


def constant(runs: np.ndarray, examples: int = 20) -> np.ndarray:
    """Runs [methods, seeds] that differ as a whole."""
    return np.repeat(runs[..., None], examples, -1)


def words(comparisons: list[Comparison], margin: float = 0.0) -> dict[tuple[str, str], Word]:
    return {(c.method, c.other): c.word(margin) for c in comparisons}


# ------------------------------------------------------------------------------- references
def test_two_methods_of_the_same_seeds_are_a_paired_t_test() -> None:
    runs = np.random.default_rng(0).normal(50, 3, (2, 5)) + np.random.default_rng(1).normal(0, 9, 5)
    (comparison,) = star(labelled(constant(runs)))
    expected = stats.ttest_rel(*runs)
    error = comparison.family.error(5)
    assert 0.8 * ERROR < error < ERROR
    assert comparison.p == pytest.approx(min(1.0, expected.pvalue * ALPHA / error))
    interval = expected.confidence_interval(1 - error)
    assert (comparison.low, comparison.high) == pytest.approx((interval.low, interval.high))


def test_runs_of_their_own_seeds_are_dunnetts_test() -> None:
    """One way, balanced, equal spreads; one of so many seeds for which none is set apart."""
    runs = np.random.default_rng(3).normal(50, 3, (6, 8))
    scores = {
        f"m{i}": {(i, s): np.full(20, value) for s, value in enumerate(row)}
        for i, row in enumerate(runs)
    }
    found = star(scores)
    assert not fit(scores).on_its_own.any()
    expected = stats.dunnett(*runs[1:], control=runs[0], random_state=0)
    error = found[0].family.error(8)
    for comparison, p in zip(found, expected.pvalue, strict=True):
        assert comparison.p == pytest.approx(min(1.0, p * ALPHA / error), rel=0.01)
    interval = expected.confidence_interval(1 - error)
    lows = [-comparison.high for comparison in found]  # scipy's difference is other minus control
    assert lows == pytest.approx(interval.low, rel=0.02, abs=0.02)


# ------------------------------------------------------------------------------------- laws
def test_p_interval_and_word_never_disagree() -> None:
    rng = np.random.default_rng(2)
    seen = set()
    for _ in range(60):
        methods = int(rng.integers(2, 7))
        scores = table(rng, methods, int(rng.integers(2, 6)), run=rng.uniform(0.5, 8, methods))
        scores += rng.normal(0, 6, (methods, 1, 1))
        made = star(labelled(scores))
        for c in [*made, *all_pairs(fit(labelled(scores)), made)]:
            decided = c.word() in (Word.BETTER, Word.WORSE)
            assert decided == (c.p < ALPHA) == (not c.low <= 0 <= c.high)
            seen.add(c.word())
    assert seen == {Word.BETTER, Word.WORSE, Word.UNDECIDED}


def test_a_planned_comparison_stands_in_the_table_of_all_pairs() -> None:
    rng = np.random.default_rng(3)
    for _ in range(10):
        scores = labelled(table(rng, 6) + rng.normal(0, 5, (6, 1, 1)))
        main = star(scores, "m2")
        matrix = all_pairs(fit(scores), main)
        assert [(c.method, c.other) for c in matrix] == list(combinations(scores, 2))
        both = words(matrix) | words([c.mirrored() for c in matrix])
        assert all(both[c.method, c.other] == c.word() for c in main)


def test_several_references_share_the_error_of_one() -> None:
    fitted = fit(labelled(table(np.random.default_rng(4), 6)))
    alone = planned(fitted, {"m0": ["m1", "m2", "m3"]})
    both = planned(fitted, {"m0": ["m1", "m2", "m3"], "m4": ["m5"]})
    assert sum(found[0].family.share for found in both.values()) == pytest.approx(PLANNED)
    assert both["m0"][0].half_width > alone["m0"][0].half_width


def test_a_reference_without_others_has_no_comparisons() -> None:
    fitted = fit(labelled(table(np.random.default_rng(19), 1)))
    assert planned(fitted, {"m0": []}) == {}
    assert all_pairs(fitted) == []


def test_a_constant_and_the_methods_order_change_nothing() -> None:
    scores = table(np.random.default_rng(5)) + np.arange(5)[:, None, None] * 4.0
    first = labelled(scores)
    expected = {c.other: (c.low, c.high, c.p) for c in star(first)}
    for other in (labelled(scores + 12.5), dict(reversed(first.items()))):
        found = {c.other: (c.low, c.high, c.p) for c in star(other)}
        for name, values in expected.items():
            assert found[name] == pytest.approx(values, rel=1e-6, abs=1e-9)


def test_the_mirror_image_says_the_opposite() -> None:
    (c, *_) = star(labelled(table(np.random.default_rng(6)) + np.arange(5)[:, None, None] * 30.0))
    assert c.word() is Word.WORSE
    assert c.mirrored().word() is Word.BETTER
    assert (c.mirrored().low, c.mirrored().high, c.mirrored().p) == (-c.high, -c.low, c.p)


# -------------------------------------------------------------------------------- equality
def test_equal_needs_a_margin_and_an_interval_within_it() -> None:
    (c, *_) = star(labelled(table(np.random.default_rng(7), own=0.0, output=1.0, run=0.1)))
    assert c.word() is Word.UNDECIDED
    widest = max(abs(c.low), abs(c.high))
    assert c.word(widest * 1.01) is Word.EQUAL
    assert c.word(widest * 0.99) is Word.UNDECIDED
    assert c.not_inferior(abs(c.low) * 1.01)
    assert not c.not_inferior(abs(c.low) * 0.99)


def test_a_difference_of_the_margin_is_rarely_called_equal() -> None:
    """Two-one-sided tests at the edge of equality."""
    rng = np.random.default_rng(8)
    wrong = 0
    for _ in range(300):
        scores = table(rng, 3, 5, own=1.0, output=2.0, run=0.5)
        scores[0] += 3.0
        wrong += any(c.word(3.0) is Word.EQUAL for c in star(labelled(scores)))
    assert wrong <= 15


# ---------------------------------------------------------------------------- with the best
@pytest.mark.slow
def test_the_best_is_among_those_that_may_be_best() -> None:
    rng = np.random.default_rng(9)
    missed = 0
    for _ in range(200):
        scores = table(rng, 6, 5)
        scores += np.linspace(0, 3, 6)[:, None, None]
        found = {b.method: b for b in with_best(fit(labelled(scores)))}
        missed += not found["m5"].may_be_best
        assert all(b.low <= 0 <= b.high for b in found.values())
    assert missed <= 10


def test_a_clear_best_is_alone_and_the_far_ones_are_inferior() -> None:
    scores = table(np.random.default_rng(10), 4, 6)
    scores[2] += 40.0
    found = {b.method: b for b in with_best(fit(labelled(scores)))}
    assert [name for name, b in found.items() if b.may_be_best] == ["m2"]
    assert found["m2"].low == 0 < found["m2"].high
    assert not found["m0"].not_inferior(10.0)
    assert found["m0"].not_inferior(80.0)


# ------------------------------------------------------------------------------------ power
def test_more_runs_see_smaller_leads() -> None:
    (c, *_) = star(labelled(table(np.random.default_rng(11), 8, 3)))
    leads = [c.smallest_lead(runs) for runs in (3, 4, 5, 8, 12, 30, 200)]
    assert leads == sorted(leads, reverse=True)
    assert c.smallest_lead() == leads[0]
    assert c.smallest_lead(2) == np.inf


@pytest.mark.parametrize("seeds", [4, 8])
def test_the_smallest_lead_is_found_in_four_of_five_tables(seeds) -> None:
    rng = np.random.default_rng(12)
    seen = [c for _ in range(20) for c in star(labelled(table(rng, 5, seeds)))]
    lead = typical_lead(seen)
    found = []
    for _ in range(150):
        scores = table(rng, 5, seeds)
        scores[0] += lead
        found += [c.word() is Word.BETTER for c in star(labelled(scores))]
    assert np.mean(found) == pytest.approx(0.8, abs=0.08)


def test_the_seeds_needed_are_the_fewest_whose_smallest_lead_is_the_difference() -> None:
    scores = table(np.random.default_rng(13), 6, 3) + np.arange(6)[:, None, None] * 1.5
    needed = {c.other: c.seeds_needed for c in star(labelled(scores))}
    for c in star(labelled(scores)):
        if needed[c.other] is None:
            assert c.smallest_lead(MOST_SEEDS) > abs(c.difference)
        else:
            assert c.smallest_lead(needed[c.other]) <= abs(c.difference)
            assert c.smallest_lead(needed[c.other] - 1) > abs(c.difference)
    assert None in needed.values()
    assert any(needed.values())


# ------------------------------------------------------------------------- what is not known
@pytest.mark.parametrize(
    ("methods", "seeds", "examples"), [(4, 1, 50), (4, 2, 50), (2, 1, 50), (4, 5, 1)]
)
def test_too_few_runs_or_examples_decide_nothing(methods, seeds, examples) -> None:
    scores = table(np.random.default_rng(14), methods, seeds, examples)
    scores += np.arange(methods)[:, None, None] * 1000.0
    scores = labelled(scores)
    for c in [*star(scores), *all_pairs(fit(scores), star(scores))]:
        assert c.word(margin=1e9) is Word.UNDECIDED
        assert (c.low, c.high, c.p) == (-np.inf, np.inf, 1.0)
        assert not c.not_inferior(1e9)
    assert all(b.may_be_best for b in with_best(fit(scores)))


def test_a_method_of_two_runs_is_undecided_among_others_that_are_not() -> None:
    scores = table(np.random.default_rng(15), 5, 6) + np.arange(5)[:, None, None] * 50.0
    named = labelled(scores)
    named["m4"] = {s: named["m4"][s] for s in (0, 1)}
    found = words(star(named))
    assert found["m0", "m4"] is Word.UNDECIDED
    assert {found["m0", f"m{i}"] for i in (1, 2, 3)} == {Word.WORSE}


def test_without_any_spread_a_difference_is_certain_and_no_difference_is_none() -> None:
    levels = np.array([70.0, 40.0, 40.0, 40.0])
    c = {c.other: c for c in star(labelled(constant(np.repeat(levels[:, None], 4, 1))), "m1")}
    assert c["m0"].word() is Word.WORSE
    assert c["m0"].effect == -np.inf
    assert (c["m2"].difference, c["m2"].p, c["m2"].effect) == (0.0, 1.0, 0.0)
    assert c["m2"].word(0.001) is Word.EQUAL


# ------------------------------------------------------------------------------------ nulls
@pytest.mark.slow
@pytest.mark.parametrize("unstable", [1.0, 6.0])
def test_tables_of_equal_methods_rarely_hold_a_verdict(unstable) -> None:
    rng = np.random.default_rng(16)
    wrong = {"reference": 0, "pairs": 0}
    for _ in range(200):
        spreads = np.ones(10)
        spreads[rng.integers(10)] = unstable
        scores = labelled(table(rng, 10, 5, run=spreads))
        main = star(scores)
        wrong["reference"] += any(c.word() is not Word.UNDECIDED for c in main)
        matrix = all_pairs(fit(scores), main)
        wrong["pairs"] += any(c.word() is not Word.UNDECIDED for c in matrix)
    assert max(wrong.values()) <= 16  # 5 % of 200, and two standard deviations


def test_right_or_wrong_scores_are_judged_the_same_way() -> None:
    rng = np.random.default_rng(17)
    wrong = 0
    for _ in range(150):
        scores = 100.0 * (table(rng, 6, 4, examples=200) > 50.0)
        wrong += any(c.word() is not Word.UNDECIDED for c in star(labelled(scores)))
    assert wrong <= 12
    scores[1] = 100.0
    assert words(star(labelled(scores)))["m0", "m1"] is Word.WORSE


def test_twenty_methods_find_a_clear_difference_in_all_pairs() -> None:
    scores = table(np.random.default_rng(18), 20, 3, examples=300)
    scores[4] += 30.0
    found = all_pairs(fit(labelled(scores)))
    assert all(c.word() is not Word.UNDECIDED for c in found if "m4" in (c.method, c.other))
