"""One stage through DVC's command line: the command, its environment, what its output means.

It runs what it is told to run and decides nothing about order, freshness or retries.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from pipelines.orchestration import runner
from pipelines.orchestration.graph import Stage

# What DVC prints when it does not run the command.
_NOT_RUN = ("didn't change, skipping", "is cached - skipping run")
# The end of DVC's message when a stage refused its input.
_REFUSED = re.compile(r", exited with 2$", re.MULTILINE)


def repro(
    root: Path,
    stage: Stage,
    lifeline: runner.Lifeline,
    on_line: Callable[[str], object],
    env: Mapping[str, str],
    force: bool = False,
) -> runner.Ended:
    """Bring `stage` alone up to date; its upstreams must be."""
    # Stages run side by side and take DVC's lock in turn: without waiting, a stage that has
    # finished its work can fail when it wants the lock back.
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item"]
    return runner.run(
        [*command, *(["--force"] if force else []), stage.name],
        lifeline,
        on_line,
        cwd=root,
        env=env,
        timeout_seconds=stage.timeout_seconds,
    )


def python_first() -> dict[str, str]:
    """The environment with this Python first on PATH: stages call `python`."""
    here = str(Path(sys.executable).parent)  # not resolved: a venv's python is a link
    path = os.pathsep.join([here, os.environ.get("PATH", os.defpath)])
    return {**os.environ, "PATH": path}


def environment(max_workers: int) -> dict[str, str]:
    """For the stage commands: this Python, and a share of the cores each."""
    return python_first() | {
        "SKD_WORKERS": str(max(1, (os.cpu_count() or 1) // max_workers)),
        "PYTHONUNBUFFERED": "1",  # lines arrive when they are printed
        "TQDM_MININTERVAL": "20",  # seconds: each refresh of a bar is a line of the log
        "DVC_NO_ANALYTICS": "1",
    }


def not_run(ended: runner.Ended) -> bool:
    """Whether DVC found nothing to do after all, or had the outputs in its cache."""
    return any(text in line for text in _NOT_RUN for line in ended.tail)


def refused(output: str) -> bool:
    """Whether the stage said that its input is wrong (status 2): trying again cannot help."""
    return _REFUSED.search(output) is not None
