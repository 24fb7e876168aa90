"""The critical values against independent references."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from skd.report.verdicts.simultaneous import Against, Among, Joint, critical_value

ONE_SIDED = {"two_sided": False}


@pytest.mark.parametrize("freedom", [2.0, 5.5, 30.0, 2000.0])
def test_one_comparison_is_students_t(freedom) -> None:
    for shape in (Against.of([0.5]), Against.of([0.1]), Among(2)):
        joint = Joint(shape, freedom)
        assert joint.tail(2.5) == pytest.approx(2 * stats.t.sf(2.5, freedom), rel=1e-6)
        assert critical_value(joint, 0.01) == pytest.approx(stats.t.isf(0.005, freedom), rel=1e-6)
    one_sided = Joint(Against.of([0.5], **ONE_SIDED), freedom)
    assert critical_value(one_sided, 0.01) == pytest.approx(stats.t.isf(0.01, freedom), rel=1e-6)


@pytest.mark.parametrize(("methods", "freedom"), [(3, 2.0), (8, 14.0), (20, 150.0)])
def test_all_pairs_are_tukeys_studentized_range(methods, freedom) -> None:
    joint = Joint(Among(methods), freedom)
    for bound in (2.0, 3.5, 6.0):
        expected = stats.studentized_range.sf(bound * np.sqrt(2), methods, freedom)
        assert joint.tail(bound) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_against_one_is_the_multivariate_t(share) -> None:
    """Four comparisons, of which each shares so much of its variance with the others."""
    correlation = np.full((4, 4), share) + (1 - share) * np.eye(4)
    drawn = stats.multivariate_t(shape=correlation, df=9).rvs(200_000, random_state=0)
    joint = Joint(Against.of([share] * 4), 9.0)
    one_sided = Joint(Against.of([share] * 4, **ONE_SIDED), 9.0)
    assert joint.tail(2.5) == pytest.approx((np.abs(drawn).max(1) > 2.5).mean(), abs=0.002)
    assert one_sided.tail(2.5) == pytest.approx((drawn.max(1) > 2.5).mean(), abs=0.002)


def test_comparisons_may_share_different_parts() -> None:
    shares = np.array([0.2, 0.5, 0.5, 0.8])
    correlation = np.sqrt(np.outer(shares, shares))
    np.fill_diagonal(correlation, 1.0)
    drawn = stats.multivariate_t(shape=correlation, df=9).rvs(200_000, random_state=0)
    expected = (np.abs(drawn).max(1) > 2.5).mean()
    assert Joint(Against.of(shares), 9.0).tail(2.5) == pytest.approx(expected, abs=0.002)


def test_more_comparisons_fewer_freedoms_and_less_error_ask_for_more() -> None:
    def value(methods: int = 8, freedom: float = 20.0, error: float = 0.05) -> float:
        return critical_value(Joint(Against.of([0.5] * methods), freedom), error)

    assert value(methods=4) < value() < value(methods=16)
    assert value(freedom=200.0) < value() < value(freedom=4.0)
    assert value(error=0.1) < value() < value(error=0.01)
    assert value(error=0.0) == np.inf
    assert value() < critical_value(Joint(Among(9), 20.0), 0.05)  # more pairs among as many methods
