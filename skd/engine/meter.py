"""What a run costs: seconds by phase, and peak memory.

Seconds are of processor time on a CPU, where runs share the cores and other programs may take
some of them; on an accelerator, which works beside this process, they are of wall time.

A lap is read where the device has just been waited for: once or twice a step or block, never
per token. Knows no models and no training.
"""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

import torch


class Phase(StrEnum):
    """What a step is made of, and the validation between steps."""

    SAMPLING = "sampling"  # the student's sampling
    TEACHER = "teacher"  # the teacher's passes, those that verify proposals included
    LOSS = "loss"  # the student's forward and backward pass
    OPTIMISER = "optimiser"
    DATA = "data"  # making batches
    VALIDATION = "validation"


_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # proc(5): sets the peak resident size back to the present one


class Stopwatch:
    """Seconds by phase: what has passed since the last lap goes to the phase that is named."""

    def __init__(self, device: torch.device) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._clock = time.process_time if device.type == "cpu" else time.perf_counter
        self._last = self._clock()

    def lap(self, phase: str) -> None:
        now = self._clock()
        self.seconds[phase] += now - self._last
        self._last = now

    def absorb(self, measured: Mapping[str, float], rest: str) -> None:
        """Take over phases measured since the last lap; what they leave of the time is `rest`."""
        self.lap(rest)
        for phase, seconds in measured.items():
            self.seconds[phase] += seconds
            self.seconds[rest] -= seconds

    @property
    def total(self) -> float:
        return sum(self.seconds.values())


def wait(device: torch.device) -> None:
    """Until what an accelerator was given is done, so that a lap is the work's own."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reset_peak_memory(device: torch.device) -> None:
    """Begin a new peak; where the system cannot (not Linux), `peak_memory` gives None."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif _CLEAR.exists():
        _CLEAR.write_text(_RESET_PEAK)


def peak_memory(device: torch.device) -> float | None:
    """MiB since `reset_peak_memory`: allocated on an accelerator, else the process's resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if not _CLEAR.exists():
        return None
    peak = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text())
    return int(peak[1]) / 2**10 if peak else None
