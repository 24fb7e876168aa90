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
from skd.errors import UserError
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

    def places(self, extra: int = 0, processes: int = 1) -> list[str | None]:
        """For each job that may run here at once: the accelerators that it sees, None for cores.

        extra, processes: as in `jobs_at_once`.
        """
        if self.device.type == "cuda":
            if (self.runtime.teacher_device or "").startswith("cuda"):
                return [None]  # one run at a time, which sees all devices
            return device_places(visible_devices(), self.runtime.per_device, processes)
        at_once = jobs_at_once(self.device.type, self.runtime, cores(), 1, extra, processes)
        return [None] * at_once

    def devices_of_processes(self) -> list[str | None]:
        """The accelerators that each process of one run sees; None: it computes on cores.

        Its own is its first, and what is left is for the teachers, by turns.

        Raises:
            UserError: there are fewer than processes.
        """
        size = self.runtime.processes
        if self.device.type != "cuda":
            return [None] * size
        devices = visible_devices()
        _require(devices, size)
        own, others = devices[:size], devices[size:]
        if not (self.runtime.teacher_device or "").startswith("cuda"):
            return [*own]
        if not others:
            raise UserError(
                f"runtime.teacher_device: {self.runtime.teacher_device}: {size} processes take the "
                f"{size} accelerators that are seen, and none is left for their teacher; set fewer "
                "runtime.processes, or teacher_device: offload"
            )
        return [f"{device},{others[rank % len(others)]}" for rank, device in enumerate(own)]


def device_places(devices: Sequence[str], per_device: int, processes: int = 1) -> list[str | None]:
    """Each device once, then each once again: few jobs have a device each.

    processes: of a job, which has as many devices, in a list as VISIBLE has it.
    """
    _require(devices, processes)
    starts = range(0, len(devices) - processes + 1, processes)
    places = [",".join(devices[start : start + processes]) for start in starts]
    return [*places] * per_device


def _require(devices: Sequence[str], processes: int) -> None:
    if len(devices) < processes:
        raise UserError(
            f"runtime.processes: {processes} need an accelerator each, and {len(devices)} are seen "
            f"here ({VISIBLE}); set it to {max(1, len(devices))}, or runtime.device: cpu"
        )


def jobs_at_once(
    device: str,
    runtime: Runtime,
    cores: int,
    devices: int = 1,
    extra: int = 0,
    processes: int = 1,
) -> int:
    """How many jobs run side by side: one per core and `extra`, unless the user says how many.

    On accelerators `runtime.per_device` on each. SKD_WORKERS is set by whoever runs several stages
    at once.

    processes: of each job, which has a core or an accelerator for each.
    """
    if device != "cpu":
        return max(1, devices // processes) * runtime.per_device
    asked = os.environ.get("SKD_WORKERS")
    at_once = int(asked) if asked else runtime.workers or cores + extra
    return max(1, at_once // processes)


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
