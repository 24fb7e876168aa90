"""How this machine runs things: device, places of jobs, scratch. None of it changes a result.

Knows no task, no method and no stage.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from pipelines.runs.folders import BASE
from pipelines.settings.runtime import Runtime
from skd.models.folders import REFERENCE

# Bytes of weights in fp32, of student and teacher: up to here a run is quicker on a core of its
# own than by turns on an accelerator, which waits for each of its many small operations.
SMALL = 16 * 2**20
# The variable by which a process is shown some of the accelerators, by number or by name
VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Machine:
    device: torch.device
    runtime: Runtime
    # Prompts that are decoded together
    decoding_batch: int

    @staticmethod
    def of(runtime: Runtime, decoding_batch: int, models: Path = BASE) -> Machine:
        """models: folder of the student and the teacher that runs begin with."""
        return Machine(pick_device(runtime, weights(models)), runtime, decoding_batch)

    @property
    def scratch(self) -> Path:
        """Folder of resumable states and finished work"""
        return Path(self.runtime.scratch)

    def places(self, extra: int = 0) -> list[str | None]:
        """For each job that may run here at once: the accelerator that it sees, None for a core.

        extra: as in `jobs_at_once`.
        """
        if self.device.type == "cuda":
            if (self.runtime.teacher_device or "").startswith("cuda"):
                return [None]  # one run at a time, which sees both devices
            return device_places(visible_devices(), self.runtime.per_device)
        return [None] * jobs_at_once(self.device.type, self.runtime, cores(), extra=extra)


def device_places(devices: Sequence[str], per_device: int) -> list[str | None]:
    """Each device once, then each once again: few jobs have a device each."""
    return [*devices] * per_device


def jobs_at_once(
    device: str, runtime: Runtime, cores: int, devices: int = 1, extra: int = 0
) -> int:
    """How many jobs run side by side: one per core and `extra`, unless the user says how many.

    On accelerators `runtime.per_device` on each. SKD_WORKERS is set by whoever runs several stages
    at once.
    """
    if device != "cpu":
        return devices * runtime.per_device
    asked = os.environ.get("SKD_WORKERS")
    return int(asked) if asked else runtime.workers or cores + extra


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0))


def visible_devices() -> list[str]:
    """The accelerators that this process may use, as VISIBLE names them."""
    named = os.environ.get(VISIBLE)
    return named.split(",") if named else [str(n) for n in range(torch.cuda.device_count())]


def pick_device(runtime: Runtime, weights: float) -> torch.device:
    """`auto` is the first accelerator, else the CPU; and the CPU for models of few `weights`."""
    if runtime.device != "auto":
        return torch.device(runtime.device)
    return torch.device("cuda" if weights > SMALL and torch.cuda.is_available() else "cpu")


def weights(models: Path) -> float:
    """Bytes of all weights below a folder; infinity where there are none, or some elsewhere."""
    sizes = [path.stat().st_size for path in models.rglob("*.safetensors")]
    return math.inf if any(models.rglob(REFERENCE)) else sum(sizes) or math.inf
