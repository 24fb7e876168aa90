"""Laws of the intervals over seeds and of Holm's correction."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from skd.report.verdicts.statistics import holm, seed_interval


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


def test_statistics_import_neither_torch_nor_transformers():
    code = (
        "import sys, skd.report.verdicts.across, skd.report.verdicts.families; "
        "sys.exit(bool({'torch', 'transformers', 'comet'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
