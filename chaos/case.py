"""One fault: a state to begin from, a command that is struck in it, the same command again.

Knows how commands are started, watched and ended. Refuses to know which faults there are.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from chaos.project import ROOT, Project, environment

# Seconds. What is not done by then hangs.
LIMIT = 900.0
INSIDE = ROOT / "chaos" / "inside"


class MissedError(Exception):
    """The fault met nothing: the command had ended before, or never touched what was spoilt."""


class NotPossibleError(Exception):
    """This machine cannot give the fault; the message says why."""


class Command:
    """A command in the project; what it says goes to a file."""

    def __init__(self, words: Sequence[str], work: Path, log: Path, **more: str) -> None:
        self.log = log
        with log.open("w", encoding="utf-8") as said:
            self.process = psutil.Popen(
                list(words),
                cwd=work,
                env=environment() | {"PYTHONUNBUFFERED": "1"} | more,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Raises `MissedError` when the command ends before."""
        deadline = time.monotonic() + LIMIT
        while not condition():
            if not self.running or time.monotonic() > deadline:
                raise MissedError(f"it ended before (status {self.process.poll()})")
            time.sleep(0.02)

    def sleep(self, seconds: float) -> None:
        """Raises `MissedError` when the command ends before."""
        with contextlib.suppress(psutil.TimeoutExpired):
            self.process.wait(seconds)
            raise MissedError(f"it ended before (status {self.process.poll()})")

    def below(self) -> list[psutil.Process]:
        """The processes that it started, and theirs."""
        try:
            return self.process.children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def end(self) -> int:
        """Its exit status. Raises `AssertionError` where it hangs."""
        try:
            return int(self.process.wait(LIMIT))
        except psutil.TimeoutExpired:
            raise AssertionError(f"it hung for {LIMIT:.0f} s") from None


@dataclass
class Case:
    """What a fault is given: the project, a stage, random numbers."""

    project: Project
    # During which it strikes
    stage: str
    # The rest of the graph is run, too; else the stage alone
    whole: bool
    drawn: random.Random
    commands: list[Command] = field(default_factory=list)

    @property
    def work(self) -> Path:
        return self.project.work

    @property
    def log(self) -> Path:
        return self.work.parent / "said.log"

    @property
    def stages(self) -> list[str]:
        """Those whose outputs are compared."""
        later = self.project.stages[self.project.stages.index(self.stage) :]
        return later if self.whole else [self.stage]

    # ------------------------------------------------------------------ states
    def begin(self) -> None:
        """Everything before the stage is done."""
        self.project.restore(self.project.before(self.stage))

    def begin_after(self) -> None:
        """The stage is done, too."""
        later = self.project.stages[self.project.stages.index(self.stage) + 1 :]
        self.project.restore(self.project.before(later[0]) if later else self.project.end)

    # ---------------------------------------------------------------- commands
    @property
    def words(self) -> list[str]:
        """`make repro`, or what it calls, with the stage as its target."""
        if self.whole:  # `-o`: the packages are installed
            return ["make", "-o", ".venv/.ready", "repro"]
        return [sys.executable, "-m", "pipelines.repro", self.stage]

    def start(self, words: Sequence[str] | None = None, **more: str) -> Command:
        self.commands.append(Command(words or self.words, self.work, self.log, **more))
        return self.commands[-1]

    def start_spoilt(self, fault: str, number: int) -> Command:
        """With a fault inside its processes, of `chaos/inside`."""
        asked = json.dumps({"fault": fault, "number": number})
        return self.start(CHAOS=asked, PYTHONPATH=str(INSIDE))

    def in_the_stage(self, command: Command) -> None:
        """Wait for a random moment of the stage."""
        command.wait_for(lambda: f"Running stage '{self.stage}'" in command.said)
        command.sleep(self.drawn.uniform(0.0, max(1.0, self.project.seconds[self.stage] - 2.0)))

    def somewhere(self, command: Command) -> None:
        """Wait for a random moment of the command, DVC's own work included."""
        command.sleep(self.drawn.uniform(0.0, self.project.seconds[self.stage] + 4.0))

    def repeat(self) -> None:
        """The same command finishes. Raises `AssertionError` where it does not."""
        again = self.start()
        status = again.end()
        assert status == 0, f"repeated: status {status}\n{tail(again.said)}"


def tail(text: str, lines: int = 12) -> str:
    return "\n".join(text.rstrip().splitlines()[-lines:])


@contextlib.contextmanager
def cleared(case: Case) -> Iterator[None]:
    """Whatever still works in the project afterwards is ended: it was started there by a fault."""
    try:
        yield
    finally:
        for process in psutil.process_iter(["cwd"]):
            here = process.info["cwd"]
            if here and Path(here).is_relative_to(case.work) and process.pid != os.getpid():
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        for command in case.commands:
            command.end()
