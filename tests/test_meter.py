"""Laps go where they belong, and peak memory sees an allocation."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from skd.facts import Facts
from skd.meter import Stopwatch, peak_memory, reset_peak_memory


def test_every_moment_belongs_to_one_phase() -> None:
    began, watch = time.perf_counter(), Stopwatch()
    time.sleep(0.02)
    watch.lap("loss")
    time.sleep(0.01)
    watch.absorb({"sampling": 0.004, "teacher": 0.003}, rest="data")
    passed = time.perf_counter() - began
    assert watch.seconds["loss"] >= 0.02
    assert watch.seconds["data"] >= 0.003
    assert watch.total == pytest.approx(passed, abs=2e-3)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux only")
def test_peak_memory_sees_what_was_allocated_since_the_reset() -> None:
    device = torch.device("cpu")
    reset_peak_memory(device)
    before = peak_memory(device)
    block = torch.ones(64 * 2**20 // 4)
    after = peak_memory(device)
    del block
    reset_peak_memory(device)
    again = peak_memory(device)
    assert before is not None
    assert after is not None
    assert again is not None
    assert after - before >= 60
    assert after - again >= 60


def test_totals_leave_validation_out() -> None:
    facts = Facts()
    facts.spend({"loss": 1.0, "validation": 4.0})
    facts.spend({"loss": 0.5})
    assert facts.seconds == 5.5
    assert facts.totals()["seconds"] == 1.5
