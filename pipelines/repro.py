"""`dvc repro` for people: mends what a killed one left, says how long it takes and what is left.

DVC and its stages end with this process, whatever ends it.
Arguments go to `dvc repro` as they are. DVC alone decides what runs; its output is shown as it is.
"""

from __future__ import annotations

import re
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from pipelines.orchestration.countdown import (
    Countdown,
    expected_seconds,
    recorded_seconds,
    slowness,
)
from pipelines.orchestration.graph import CODE_STAGE, Stage, cache, plan
from pipelines.orchestration.leftovers import tidy
from pipelines.orchestration.repair import dvc_processes, let_end, repair
from pipelines.orchestration.repro import python_first
from pipelines.orchestration.restorable import take_out_damaged
from pipelines.orchestration.runner import Lifeline, start
from pipelines.stages.code import write_code
from pipelines.stages.command import run_command

_BEGINS = re.compile(r"^(?:Running stage|Stage) '([^']+)'(?::|( is cached))")


def repro(arguments: Sequence[str], root: Path) -> int:
    """Run it and give its status."""
    let_end(root)
    for line in (*repair(root), *tidy(root)):
        print(line, file=sys.stderr)
    stale = _stale(arguments, root)
    for line in take_out_damaged(cache(root), root / "dvc.lock", [s.command for s in stale]):
        print(line, file=sys.stderr)
    names = [stage.name for stage in stale]
    machine = slowness(root) if names else None  # timing it imports torch
    seconds = recorded_seconds(root)
    countdown = Countdown(names, seconds, expected_seconds(root, names, seconds), machine)
    print(countdown.opening(), flush=True)
    command = [sys.executable, "-m", "dvc", "repro", *arguments]
    began = time.monotonic()
    lifeline = Lifeline()
    try:
        # Bars go to standard error, which stays the terminal's.
        with start(command, lifeline, cwd=root, env=python_first(), stderr=None) as process:
            try:
                for line in process.stdout or ():
                    if begins := _BEGINS.match(line):
                        elapsed = time.monotonic() - began
                        print(countdown.begin(begins[1], elapsed, from_cache=bool(begins[2])))
                    print(line, end="", flush=True)
            except BaseException:  # KeyboardInterrupt, a reader of our output that is gone, …
                lifeline.end()
                process.wait()
                raise
    finally:
        lifeline.close()
    return process.returncode


def _stale(arguments: Sequence[str], root: Path) -> list[Stage]:
    """The stages that are to run."""
    if not dvc_processes(root):  # else its stages would be noted with code that they did not run
        write_code(root / "code", root)  # as the stage would, so that what is stale shows
    targets = [word for word in arguments if not word.startswith("-")]
    force = "--force" in arguments or "-f" in arguments
    return [stage for stage in plan(root, targets, force, [CODE_STAGE]) if not stage.fresh]


def main() -> None:
    # Ignored signals are inherited (`&` in a script), and this one asks for the end.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(repro(sys.argv[1:], Path.cwd()))


if __name__ == "__main__":
    run_command(main)
