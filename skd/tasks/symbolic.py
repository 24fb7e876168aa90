"""Whether two answers are the same mathematics, without evaluating them and within a time limit.

What a model wrote may be anything: `9^{9^{9^9}}` keeps a computer algebra system busy for
ever, in C code that no signal handler interrupts. So a helper process compares
(`skd.tasks.algebra`), under limits on CPU time and memory; it is started by the first
comparison, kept for further ones, and replaced when it did not survive one. This process
never loads the libraries. Knows no marks, no numbers, no tasks.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import threading
from functools import lru_cache
from multiprocessing import util

from skd.errors import UserError
from skd.tasks import algebra

LONGEST = 512  # characters of an answer; longer ones are not compared
WALL_SECONDS = 4.0 * algebra.CPU_SECONDS  # of one comparison; a busy machine changes no score
START_SECONDS = 120.0  # the imports, from a cold disk

_lock = threading.Lock()
_helper: Helper | None = None


class Helper:
    """The process, and one question at a time."""

    def __init__(self) -> None:
        # -P: this folder's modules must not stand before the installed ones.
        self.process = subprocess.Popen(
            [sys.executable, "-P", algebra.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
        )
        if self._line(START_SECONDS) != algebra.READY:
            self.stop()
            raise UserError(
                "the process that compares formulas does not start; install the pinned packages "
                "again (`pip install -r requirements.lock`), math-verify is among them"
            )

    def ask(self, expected: str, given: str) -> bool | None:
        """None: the comparison went over a limit, and the helper is gone."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps([expected, given]).encode() + b"\n")
            self.process.stdin.flush()
        except OSError:
            return None
        return {"1": True, "0": False}.get(self._line(WALL_SECONDS))

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self.close()

    def close(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except OSError:  # what was not flushed to a process that is gone
                continue

    def _line(self, seconds: float) -> str:
        """The next line; empty where none came in time or the process ended."""
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as ready:
            ready.register(self.process.stdout, selectors.EVENT_READ)
            if not ready.select(seconds):
                return ""
        return self.process.stdout.readline().decode().strip()


@lru_cache(maxsize=2**14)
def same(expected: str, given: str) -> bool:
    """Whether `given` equals `expected`; False where that cannot be told within the limits.

    Raises:
        UserError: the helper does not start.
    """
    if max(len(expected), len(given)) > LONGEST:
        return False
    global _helper
    with _lock:
        if _helper is None:
            _helper = Helper()
            # Runs at the end of this process, a worker of `multiprocessing` included, which
            # knows no `atexit`. One that is killed closes its pipes, and the helper ends.
            util.Finalize(None, stop, exitpriority=0)
        answer = None
        try:
            answer = _helper.ask(expected, given)
        finally:
            if answer is None:  # interrupted too: its reply must not answer the next question
                stop()
        return bool(answer)


def stop() -> None:
    """End the helper; the next comparison starts another."""
    global _helper
    if _helper is not None:
        _helper.stop()
        _helper = None


def _forget() -> None:
    """A forked child must not talk through its parent's pipes; it starts a helper of its own."""
    global _helper, _lock
    _lock = threading.Lock()
    if _helper is not None:
        _helper.close()
        _helper.process.returncode = 0  # not the child's to wait for
        _helper = None


os.register_at_fork(after_in_child=_forget)
