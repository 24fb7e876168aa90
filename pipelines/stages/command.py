"""What every stage command shares: errors without tracebacks, facts about the machine, JSON rows.

Knows no stage, no DVC and no Prefect.
"""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from skd.errors import UserError
from skd.files import write_json

PACKAGES = ("torch", "transformers", "datasets", "sacrebleu", "dvc", "prefect", "pandas")


def run(main: Callable[[], None]) -> None:
    """Run a stage; a `UserError` is printed alone and ends it with status 2."""
    gc.freeze()  # what was imported stays, in the workers too
    _keep_freed_memory()
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted: run the same command again to continue", file=sys.stderr)
        sys.exit(130)


def _keep_freed_memory() -> None:
    """Let glibc keep what a training step frees, for the next one to take.

    By default it gives large blocks back to the system and gets them again, emptied, a page fault
    per 4 KiB: 2,000 to 20,000 a step of the default's teacher, 5 % of its time and more.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # elsewhere than glibc there is nothing to set
        for parameter, value in _MALLOC.items():
            mallopt(parameter, value)


# malloc.h: M_MMAP_THRESHOLD at its largest, and M_TRIM_THRESHOLD; bytes.
_MALLOC = {-3: 32 * 2**20, -1: 2**31 - 1}


def seconds() -> float:
    """Wall seconds since this process began: a stage pays for its imports too."""
    return round(time.time() - psutil.Process().create_time(), 2)


def write_metrics(name: str, device: object, facts: dict[str, Any]) -> None:
    """metrics/<name>.json: what a stage counted, its wall seconds and the machine it ran on."""
    whole = {"seconds": seconds(), "environment": environment(str(device)), **facts}
    write_json(Path("metrics") / f"{name}.json", whole)


def environment(device: str) -> dict[str, str]:
    """Versions and device, for the report. Installed versions are read without importing."""
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
        "device": device,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }
