"""A stage ends with the DVC that started it, whatever ends that.

A killed DVC would leave its stage at work, which then writes the same files as the one that the
next DVC starts. Knows how DVC is called and imports nothing of it. Refuses to know what stages do.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

# Seconds between two looks
_EVERY = 0.5
# The process that takes in orphans, where no other one does
_FIRST = 1


def is_dvc(command: Sequence[str] | None) -> bool:
    """Whether a command line is DVC's: `dvc …`, `python -m dvc …`."""
    return "dvc" in [Path(word).name for word in (command or [])[:4]]


def end_with_dvc() -> None:
    """End this process when the DVC that started it has ended; by hand it was started by none."""
    if "DVC_STAGE" not in os.environ:  # which DVC says to its commands
        return
    dvc = next((process for process in psutil.Process().parents() if _calls_dvc(process)), None)
    if dvc is not None:
        threading.Thread(target=_watch, args=(dvc.pid, os.getpid()), daemon=True).start()


def _calls_dvc(process: psutil.Process) -> bool:
    try:
        return is_dvc(process.cmdline())
    except psutil.Error:
        return False


def _watch(dvc: int, stage: int) -> None:
    while _is_above(dvc, stage):
        time.sleep(_EVERY)
    os._exit(1)  # as if it had been killed: what it has finished is kept


def _is_above(dvc: int, stage: int) -> bool:
    """Whether the process is an ancestor still. By ids alone: clocks may move."""
    try:
        process = psutil.Process(stage)
        while process.pid not in (dvc, _FIRST):
            process = psutil.Process(process.ppid())
        return process.pid == dvc
    except psutil.NoSuchProcess:
        return False
