"""Laps go where they belong, and peak memory sees an allocation."""

from __future__ import annotations

import mmap
import time
from pathlib import Path

import pytest
import torch

from skd.engine.meter import Stopwatch, peak_memory, reset_peak_memory
from skd.training.counts import Facts


def test_every_moment_belongs_to_one_phase() -> None:
    began, watch = time.process_time(), Stopwatch(torch.device("cpu"))
    _work(0.02)
    watch.lap("loss")
    _work(0.01)
    watch.absorb({"sampling": 0.004, "teacher": 0.003}, rest="data")
    passed = time.process_time() - began
    assert watch.seconds["loss"] >= 0.02
    assert watch.seconds["data"] >= 0.003
    assert watch.total == pytest.approx(passed, abs=2e-3)


def test_waiting_for_the_cores_costs_a_run_nothing() -> None:
    watch = Stopwatch(torch.device("cpu"))
    time.sleep(0.05)
    watch.lap("loss")
    assert watch.total < 0.02


def _work(seconds: float) -> None:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux only")
def test_peak_memory_sees_what_was_allocated_since_the_reset() -> None:
    device = torch.device("cpu")
    reset_peak_memory(device)
    before = peak_memory(device)
    with mmap.mmap(-1, 64 * 2**20) as block:  # malloc may have kept as much from another test
        block.write(bytes(len(block)))
        after = peak_memory(device)
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
