"""Starts the process that feeds an experiment tracker from the runs' logs, where one is asked for.

The tracker's package is imported in that process alone. A stage trains the same with one and
without, and what a tracker does wrong ends no training. Refuses to know the trackers.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from skd.errors import UserError


@contextmanager
def tracked(tracker: str | None, announcement: Path | None) -> Iterator[None]:
    """Feed the tracker while the body lasts.

    Raises:
        UserError: its package is not installed.
    """
    if tracker is None or announcement is None:
        yield
        return
    if find_spec(tracker) is None:
        raise UserError(
            f"runtime.tracker: {tracker} is not installed; `python -m pip install '.[{tracker}]'` "
            "installs it, and `tracker: null` trains without"
        )
    command = [sys.executable, "-m", "pipelines.trackers", tracker, str(announcement)]
    # It ends at the end of its standard input: when this process closes it, or is killed.
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        yield
    if process.returncode:
        print(
            f"runtime.tracker: {tracker} ended with status {process.returncode} (above); the runs "
            "are trained, and what it has of them is not whole",
            file=sys.stderr,
        )
