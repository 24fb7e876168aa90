"""`dvc repro` for people: mends what a killed one left, says how long it takes and what is left.

Arguments go to `dvc repro` as they are. DVC alone decides what runs; its output is shown as it is.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from pipelines.orchestration.countdown import Countdown, recorded_seconds, slowness
from pipelines.orchestration.graph import CODE_STAGE, plan
from pipelines.orchestration.repair import repair
from pipelines.stages.code import write_code
from pipelines.stages.command import run_command

_BEGINS = re.compile(r"^(?:Running stage|Stage) '([^']+)'(?::| is cached)")


def repro(arguments: Sequence[str], root: Path) -> int:
    """Run it and give its status."""
    for line in repair(root):
        print(line, file=sys.stderr)
    countdown = _countdown(arguments, root)
    print(countdown.opening(), flush=True)
    command = [sys.executable, "-m", "dvc", "repro", *arguments]
    began = time.monotonic()
    # Bars go to standard error, which stays the terminal's.
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if begins := _BEGINS.match(line):
                print(countdown.begin(begins[1], time.monotonic() - began))
            print(line, end="", flush=True)
    return process.returncode


def _countdown(arguments: Sequence[str], root: Path) -> Countdown:
    write_code(root / "code", root)  # as the stage would, so that what is stale shows
    targets = [word for word in arguments if not word.startswith("-")]
    force = "--force" in arguments or "-f" in arguments
    names = [stage.name for stage in plan(root, targets, force, [CODE_STAGE]) if not stage.fresh]
    return Countdown(names, recorded_seconds(root, names), slowness(root))


def main() -> None:
    sys.exit(repro(sys.argv[1:], Path.cwd()))


if __name__ == "__main__":
    run_command(main)
