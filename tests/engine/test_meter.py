"""Laps go where they belong, and peak memory sees an allocation.

The clocks here are the test's own: no outcome depends on how fast or how busy the machine is.
"""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest
import torch

from skd.engine import meter
from skd.engine.meter import Stopwatch, peak_memory, reset_peak_memory
from skd.training.counts import RunCounts

CPU = torch.device("cpu")


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of processor time."""
    clock = Clock()
    monkeypatch.setattr(meter.time, "process_time", clock)
    return clock


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock on the wall."""
    clock = Clock()
    monkeypatch.setattr(meter.time, "perf_counter", clock)
    return clock


def test_every_moment_belongs_to_one_phase(processor: Clock) -> None:
    watch = Stopwatch(CPU)
    processor.now += 2.0
    watch.lap("loss")
    processor.now += 10.0
    watch.absorb({"sampling": 4.0, "teacher": 3.0}, rest="data")
    processor.now += 0.5
    watch.lap("loss")
    assert watch.seconds == {"loss": 2.5, "sampling": 4.0, "teacher": 3.0, "data": 3.0}
    assert watch.total == 12.5


def test_waiting_for_the_cores_costs_a_run_nothing(processor: Clock, wall: Clock) -> None:
    watch = Stopwatch(CPU)
    wall.now += 60.0
    watch.lap("loss")
    assert watch.total == 0.0
    processor.now += 1.0
    watch.lap("loss")
    assert watch.total == 1.0


def test_waiting_for_an_accelerator_is_the_runs_own_time(processor: Clock, wall: Clock) -> None:
    watch = Stopwatch(torch.device("cuda"))
    processor.now += 60.0
    wall.now += 2.0
    watch.lap("loss")
    assert watch.total == 2.0


def test_peak_memory_is_what_the_system_says_since_the_reset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, clear = tmp_path / "status", tmp_path / "clear_refs"
    monkeypatch.setattr(meter, "_STATUS", status)
    monkeypatch.setattr(meter, "_CLEAR", clear)
    status.write_text("VmPeak:\t 9999 kB\nVmHWM:\t    3072 kB\nVmRSS:\t    1024 kB\n")
    assert peak_memory(CPU) is None  # a system that cannot begin a new peak
    reset_peak_memory(CPU)
    assert not clear.exists()
    clear.touch()
    reset_peak_memory(CPU)
    assert clear.read_text() == "5"
    assert peak_memory(CPU) == 3.0


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux only")
def test_peak_memory_sees_what_was_allocated_since_the_reset() -> None:
    """An order of readings and no sizes, which other processes' need of memory could change."""
    reset_peak_memory(CPU)
    before = peak_memory(CPU)
    with mmap.mmap(-1, 64 * 2**20) as block:  # malloc may have kept as much from another test
        block.write(bytes(len(block)))
        after = peak_memory(CPU)
    reset_peak_memory(CPU)
    again = peak_memory(CPU)
    assert before is not None
    assert after is not None
    assert again is not None
    assert 0 < before < after
    assert 0 < again < after


def test_totals_leave_validation_out() -> None:
    counts = RunCounts()
    counts.spend({"loss": 1.0, "validation": 4.0})
    counts.spend({"loss": 0.5})
    assert counts.seconds == 5.5
    assert counts.totals()["seconds"] == 1.5
