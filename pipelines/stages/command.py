"""What every stage command shares: its arguments, its errors, and what it took.

Refuses to know stages, DVC and Prefect.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from pipelines import BEGAN
from pipelines.orphans import end_with_dvc
from pipelines.parameters import read_parameters, unchanged
from skd.errors import UserError, fault_of_the_machine, printable
from skd.results.files import write_result
from skd.results.took import Took

T = TypeVar("T")
METRICS = Path("metrics")
_CPUINFO = Path("/proc/cpuinfo")
PACKAGES = ("torch", "transformers", "datasets", "sacrebleu", "dvc", "prefect", "pandas")


def run_command(main: Callable[[], None]) -> None:
    """Run a command. A `UserError` is printed without a traceback and ends it with status 2.

    So is what a full disk or a read-only folder raises; that ends it with status 1, since the
    input is right and another attempt may go well.
    """
    end_with_dvc()
    gc.freeze()  # what was imported stays, in the workers too
    _keep_freed_memory()
    try:
        with unchanged():
            main()
    except UserError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        sys.exit(2)
    except Exception as error:
        message = fault_of_the_machine(error)
        if message is None:
            raise
        print(f"error: {printable(message)}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted: run the same command again to continue", file=sys.stderr)
        sys.exit(130)


def stage_parameters(kind: type[T], description: str | None, argv: Sequence[str] | None) -> T:
    """The parameters of a stage that takes no argument but `--help`."""
    argparse.ArgumentParser(description=description).parse_args(argv)
    return read_parameters(kind)


def item_parameters(
    kind: type[T], description: str | None, argv: Sequence[str] | None, *, item: str, section: str
) -> tuple[str, T]:
    """The row that a stage works on, from the command line, and the stage's parameters.

    Args:
        item: what the row is called in `--help`, such as `method`.
        section: where it stands in params.yaml, with dots.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(item, help=f"a row of `{section}` in params.yaml")
    name: str = vars(parser.parse_args(argv))[item]
    return name, read_parameters(kind, name)


def write_metrics(name: str, result: Any) -> None:
    """metrics/NAME.json"""
    write_result(METRICS / f"{name}.json", result)


def took(device: object = None, fixed_work: float | None = None) -> Took:
    """What this process has taken so far, and where it ran.

    Args:
        device: None: it runs no model.
        fixed_work: how fast the machine is, where that was timed.
    """
    return Took(seconds(), {} if device is None else environment(str(device)), fixed_work)


def seconds() -> float:
    """Seconds since this process began: a stage pays for its imports too."""
    return round(time.monotonic() - BEGAN, 2)


def environment(device: str) -> dict[str, str]:
    """Versions, device and machine. Installed versions are read without importing anything."""
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
        "device": device,
        "machine": f"{_processor()}, {os.cpu_count()} cores",
    }


def _processor() -> str:
    """The processor's model as Linux names it, elsewhere as Python does."""
    if _CPUINFO.exists():
        for line in _CPUINFO.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return f"{value.strip()}, {platform.machine()}"
    return platform.processor() or platform.machine()


def _keep_freed_memory() -> None:
    """Let glibc keep what a training step frees, for the next one to take, up to a size.

    By default it gives large blocks back to the system and gets them again, emptied, with a page
    fault per 4 KiB: 2,000 to 20,000 in a step of the default's teacher, which is 5 % of its time
    and more. Kept blocks of a large model's steps do not fit the next ones, whose rows have other
    lengths: such a process grew to twice of what it needs. They are given back.

    oneDNN, which multiplies bf16, keeps the code that it makes for a product's shape, by default of
    the last 1,024 shapes: where each step's rows have another length, some 11 MiB more a step.
    """
    os.environ.setdefault(*_ONEDNN)  # read at the first product; workers inherit it
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # elsewhere than with glibc there is nothing to set
        for parameter, value in _MALLOC.items():
            mallopt(parameter, value)


# malloc.h: M_MMAP_THRESHOLD, above all that the default's models need, and M_TRIM_THRESHOLD; bytes.
_MALLOC = {-3: 4 * 2**20, -1: 2**31 - 1}
# More shapes than a step has; fewer cost no time that could be measured.
_ONEDNN = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
