"""What a device has: memory, cores, and what a process takes on it before any model is there.

Knows no model.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from pipelines.runs.machine import cores, visible_devices

# A control group may allow less than the machine has
_LIMIT = Path("/sys/fs/cgroup/memory.max")
# Of CUDA's context, libraries and captured graphs, which its allocator does not count
_CONTEXT = 2**30


@dataclass(frozen=True)
class Device:
    # cpu, cuda or mps
    kind: str
    # For people
    name: str
    # Bytes, of each accelerator where there are several
    memory: int
    # Bytes of a process that has imported the libraries, or of an accelerator's context
    process: int
    # Cores that this process may use
    cores: int
    # Bytes that are free on the disk of the project
    disk: int
    # Accelerators that this process may use; 1 on a CPU
    count: int = 1


def device_of(device: torch.device) -> Device:
    """The device that the stages would run on, looked at now."""
    disk = shutil.disk_usage(Path()).free
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        memory, name = properties.total_memory, str(properties.name)
        count = len(visible_devices())
        return Device(device.type, name, memory, _CONTEXT, cores(), disk, count)
    own: int = psutil.Process().memory_info().rss
    return Device(device.type, f"{cores()} cores", _memory(), own, cores(), disk)


def _memory() -> int:
    """Of the machine, or what its control group allows."""
    whole: int = psutil.virtual_memory().total
    limit = _LIMIT.read_text(encoding="utf-8").strip() if _LIMIT.exists() else "max"
    return whole if limit == "max" else min(whole, int(limit))
