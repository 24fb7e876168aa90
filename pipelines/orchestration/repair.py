"""Makes readable again what a killed DVC left cut off, before the next DVC starts.

DVC writes two files in place: `.dvc/tmp/rwlock`, which names the processes at work and the paths
that they hold, and `dvc.lock`, which holds what each stage last ran with. Killed in the middle of
a write, it leaves the first part of the file, and every later command refuses that. DVC's other
locks need no repair: the system frees them when their holder ends.

While a DVC process works in the project, a cut file stays as it is. This module knows the layout of
DVC's files and imports nothing of DVC. POSIX only: it holds DVC's locks while it works.
"""

from __future__ import annotations

import fcntl
import json
import re
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil

from pipelines.orphans import is_dvc
from skd.files import write_text

# Whoever writes `dvc.lock` holds the first, whoever writes `rwlock` the second.
_GUARDS = ("lock", "rwlock.lock")
# In dvc.lock the stages stand two spaces deep.
_STAGE = re.compile(r"^  \S", re.MULTILINE)
# Seconds. The system knows a process's start this well.
_START_PRECISION = 2.0
# Seconds. What ends a command with its caller (`runner.py`) is at its end by then.
_ENDING = 16.0


def repair(root: Path) -> list[str]:
    """Mend the files of the project at `root`; return a line about each one that needed it."""
    temporary = root / ".dvc" / "tmp"
    if not temporary.is_dir():
        return []
    with _held([temporary / name for name in _GUARDS]) as nobody_writes:
        if not nobody_writes:
            return []
        done = [_mend_rwlock(temporary / "rwlock", root), _mend_dvc_lock(root / "dvc.lock", root)]
    return [line for line in done if line]


@contextmanager
def _held(locks: list[Path]) -> Iterator[bool]:
    """Hold the locks, without waiting for them; False when somebody else holds one."""
    with ExitStack() as stack:
        try:
            for lock in locks:
                fcntl.flock(stack.enter_context(lock.open("a")), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


# ---------------------------------------------------------------------- .dvc/tmp/rwlock
def _mend_rwlock(lock: Path, root: Path) -> str | None:
    """Remove the file when it cannot be read; otherwise take out the entries of the dead."""
    if not lock.is_file():
        return None
    try:
        entries = {"write": {}, "read": {}} | json.loads(lock.read_text(encoding="utf-8"))
        living = _of_the_living(entries, lock.stat().st_mtime)
    except (ValueError, TypeError, KeyError, AttributeError):
        if dvc_processes(root):
            return None
        lock.unlink()
        return f"removed {lock}: a DVC that was killed had left it unreadable"
    if living == entries:
        return None
    write_text(lock, json.dumps(living))
    return f"took out of {lock} what processes that have ended held"


def _of_the_living(entries: dict[str, Any], written: float) -> dict[str, Any]:
    """One process may write a path, many may read it."""
    readers = {
        path: [holder for holder in holders if _lives(holder["pid"], written)]
        for path, holders in entries["read"].items()
    }
    return {
        "write": {
            path: holder
            for path, holder in entries["write"].items()
            if _lives(holder["pid"], written)
        },
        "read": {path: holders for path, holders in readers.items() if holders},
    }


def _lives(pid: int, written: float) -> bool:
    """Whether the process that wrote its id at the time `written` or before is still at work.

    One that started later has only got the same id.
    """
    try:
        process = psutil.Process(pid)
        dead = process.status() == psutil.STATUS_ZOMBIE
        return not dead and process.create_time() <= written + _START_PRECISION
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:  # it is there, and another user's
        return True


# ------------------------------------------------------------------------------ dvc.lock
def _mend_dvc_lock(lock: Path, root: Path) -> str | None:
    """Take the last stage out of a file that was cut: all before it are whole.

    DVC then restores that stage and the lost ones from its cache, or runs them.
    """
    if not lock.is_file():
        return None
    text = lock.read_text(encoding="utf-8", errors="replace")  # a character may be cut, too
    if _ends_with_a_whole_line(text) or dvc_processes(root):
        return None
    stages = [match.start() for match in _STAGE.finditer(text)]
    if len(stages) > 1:
        write_text(lock, text[: stages[-1]])
    else:
        lock.unlink()
    return f"shortened {lock} to its whole stages: a DVC that was killed had left it cut off"


def _ends_with_a_whole_line(text: str) -> bool:
    """A file cut between two whole lines is one that DVC reads: it holds less than it did."""
    return text.endswith("\n") and not text.endswith(":\n")


# ----------------------------------------------------------------------------- processes
def dvc_processes(root: Path) -> list[int]:
    """Processes that look like DVC and work in this project, or where that cannot be told."""
    return [
        process.pid
        for process in psutil.process_iter(["cmdline", "cwd"])
        if is_dvc(process.info["cmdline"])
        and _project(process.info["cwd"]) in (None, root.resolve())
    ]


def let_end(root: Path, seconds: float = _ENDING) -> None:
    """Wait for a DVC that works here: it may be ending, since whoever started it was killed."""
    deadline = time.monotonic() + seconds
    while (working := dvc_processes(root)) and time.monotonic() < deadline:
        print(f"waiting for DVC to end (process {working[0]})", file=sys.stderr)
        time.sleep(min(2.0, seconds))


def _project(folder: str | None) -> Path | None:
    """The nearest project around the folder; None where the folder is not ours to read."""
    if folder is None:
        return None
    here = Path(folder)
    return next((path for path in (here, *here.parents) if (path / ".dvc").is_dir()), here)


def main() -> None:
    for line in repair(Path.cwd()):
        print(line, file=sys.stderr)


if __name__ == "__main__":
    main()
