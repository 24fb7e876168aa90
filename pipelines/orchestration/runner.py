"""One command as a child that can always be ended, together with everything it started.

A supervisor process stands between the caller and the command. It holds the read end of
the caller's lifeline as its stdin: when the caller closes the write end, or dies in any
way, the supervisor sees the end of file and ends the command. The command's own children
are asked first, so that the command itself (DVC) sees a failed child and unwinds.

This module knows no graph, no stage and no server. Beside the standard library it needs
psutil, to find the children. POSIX only: it relies on sessions and inherited pipes.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO

import psutil

TIMED_OUT = 124  # exit statuses of the supervisor that are not the command's
CANCELLED = 125
TAIL_LINES = 30

# Signal and how long to wait for the command, in seconds. An interrupt lets Python run its
# `finally` blocks. The sum stays under the 30 s that Prefect grants a cancelled flow run.
ESCALATION = ((signal.SIGINT, 4.0), (signal.SIGTERM, 4.0), (signal.SIGKILL, 4.0))


@dataclass
class Lifeline:
    """A pipe whose write end only the owner holds; every supervisor waits for its end."""

    read: int = field(init=False)
    write: int | None = field(init=False)

    def __post_init__(self) -> None:
        # Not inheritable: a child that kept the write end would keep the line alive.
        self.read, self.write = os.pipe()

    @property
    def cut(self) -> bool:
        return self.write is None

    def end(self) -> None:
        """End every command started on this line. Calling it again does nothing."""
        if self.write is not None:
            write, self.write = self.write, None
            os.close(write)

    def close(self) -> None:
        """End the commands and give the pipe back; only when none is running any more."""
        self.end()
        os.close(self.read)


@dataclass(frozen=True)
class Ended:
    status: int  # the command's exit status, or TIMED_OUT, or CANCELLED
    tail: tuple[str, ...]  # last TAIL_LINES lines of stdout and stderr together


def start(
    command: Sequence[str],
    lifeline: Lifeline,
    *,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    timeout_seconds: float | None = None,
    stdout: IO[str] | int = subprocess.PIPE,
    stderr: int | None = subprocess.STDOUT,
) -> subprocess.Popen[str]:
    """Start `command` under a supervisor, in a session of its own.

    stderr: by default it goes where `stdout` does; None: where the caller's goes.
    """
    limit = "none" if timeout_seconds is None else str(timeout_seconds)
    return subprocess.Popen(
        # By path and with -P: no import depends on the working directory.
        [sys.executable, "-P", str(Path(__file__).resolve()), limit, *command],
        cwd=cwd,
        env=env,
        stdin=lifeline.read,
        stdout=stdout,
        stderr=stderr,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,  # a Ctrl-C in the terminal reaches the caller alone
    )


def run(
    command: Sequence[str],
    lifeline: Lifeline,
    on_line: Callable[[str], object],
    *,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    timeout_seconds: float | None = None,
) -> Ended:
    """Run to the end, handing each non-empty line of output to `on_line` as it comes."""
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    with start(command, lifeline, cwd=cwd, env=env, timeout_seconds=timeout_seconds) as process:
        for raw in process.stdout or ():
            if line := raw.rstrip():
                tail.append(line)
                on_line(line)
    return Ended(process.returncode, tuple(tail))


# ------------------------------------------------------------- the supervisor's side
def supervise(command: Sequence[str], timeout_seconds: float | None) -> int:
    """Run `command` until it exits, stdin ends, SIGTERM comes or the time is up."""
    events: queue.SimpleQueue[int | None] = queue.SimpleQueue()  # None: the command exited

    def on_term(_signum: int, _frame: FrameType | None) -> None:
        events.put(CANCELLED)

    signal.signal(signal.SIGTERM, on_term)
    # Ignored signals are inherited (`nohup`, `&` in a script); a handler is not.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def wait_for_exit() -> None:
        child.wait()
        events.put(None)

    def wait_for_caller() -> None:
        os.read(0, 1)  # nobody writes: this returns at end of file
        events.put(CANCELLED)

    for watch in (wait_for_exit, wait_for_caller):
        threading.Thread(target=watch, daemon=True).start()
    try:
        reason = events.get(timeout=timeout_seconds)
    except queue.Empty:
        reason = TIMED_OUT
        print(f"ended: not done after {timeout_seconds:g} s", flush=True)
    if reason is not None:
        end(child)
    sweep()
    return child.returncode if reason is None else reason


def end(child: subprocess.Popen[bytes]) -> None:
    """End the children of `child` so that it can unwind; without children, end it itself."""
    for signum, patience in ESCALATION:
        for process in descendants(child.pid) or [child]:
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                process.send_signal(signum)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(patience)
            return
    child.kill()
    child.wait()


def descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def sweep() -> None:
    """Kill what the command left behind: it would hold the output pipe open."""
    session, own = os.getsid(0), os.getpid()
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if pid != own and os.getsid(pid) == session:
                os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    limit, *words = sys.argv[1:]
    raise SystemExit(supervise(words, None if limit == "none" else float(limit)))
