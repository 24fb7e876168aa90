"""How this machine runs things: device, workers, scratch. None of it changes what comes out.

Knows no task, no method and no stage.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from pipelines.settings.runtime import Runtime


@dataclass(frozen=True)
class Machine:
    device: torch.device
    # Folder of resumable states and finished work
    scratch: Path
    # Whether progress bars are shown
    progress: bool
    # Jobs side by side; None: as many as there are cores
    workers: int | None
    # Prompts that are decoded together
    decoding_batch: int

    @staticmethod
    def of(runtime: Runtime, decoding_batch: int) -> Machine:
        return Machine(
            pick_device(runtime),
            Path(runtime.scratch),
            runtime.progress,
            runtime.workers,
            decoding_batch,
        )

    def jobs_at_once(self, extra: int = 0) -> int:
        """How many jobs run side by side here. extra: as in the function."""
        return jobs_at_once(self.device.type, self.workers, cores(), extra)


def jobs_at_once(device: str, workers: int | None, cores: int, extra: int = 0) -> int:
    """How many jobs run side by side: one per core and `extra`, unless the user says how many.

    With one extra, the last jobs of a stage share the cores instead of leaving one idle. On an
    accelerator jobs run one after the other. SKD_WORKERS is set by whoever runs several stages
    at once.
    """
    if device != "cpu":
        return 1
    asked = os.environ.get("SKD_WORKERS")
    return int(asked) if asked else workers or cores + extra


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0))


def pick_device(runtime: Runtime) -> torch.device:
    """`auto` is the first accelerator, else the CPU."""
    if runtime.device != "auto":
        return torch.device(runtime.device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
