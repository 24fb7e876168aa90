"""How far the stages are that train in this project now, in a terminal, until Ctrl-C.

Reads what the stages announce and log (`pipelines/runs/progress.py`), so it may start and end at
any time. It shows whatever runs: `make repro`, `make flow`, or a stage by hand.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from pathlib import Path

from pipelines.orchestration.pace import Pace, line, run_line
from pipelines.orchestration.worktree import EXPERIMENTS
from pipelines.runs.progress import Standing, standings
from pipelines.stages.command import run_command

# Seconds between two looks
EVERY = 2.0
IDLE = "no stage trains here now"
# Back to the first of so many lines, and clear what stands below: ECMA-48's CPL and ED
_BACK, _CLEAR = "\x1b[{}F", "\x1b[J"


class Watch:
    """The stages of the project and of its experiments, each with its pace."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.paces: dict[tuple[Path, str], Pace] = defaultdict(Pace)

    def lines(self) -> list[str]:
        roots = [self.root, *sorted((self.root / EXPERIMENTS).glob("*/"))]
        return [text for root in roots for now in standings(root) for text in self._of(root, now)]

    def _of(self, root: Path, now: Standing) -> list[str]:
        left = self.paces[root, now.stage].left(now)
        name = now.stage if root == self.root else f"{root.name}: {now.stage}"
        return [f"{name}: {line(now, left)}", *(f"    {run_line(run)}" for run in now.training)]


def main(argv: list[str] | None = None) -> None:
    argparse.ArgumentParser(prog="python -m pipelines.watch", description=__doc__).parse_args(argv)
    watch, shown = Watch(Path.cwd()), [""]
    while True:
        lines = watch.lines() or [IDLE]
        if lines != shown:
            if sys.stdout.isatty() and shown != [""]:
                print(_BACK.format(len(shown)) + _CLEAR, end="")
            print("\n".join(lines), flush=True)
            shown = lines
        time.sleep(EVERY)


if __name__ == "__main__":
    run_command(main)
