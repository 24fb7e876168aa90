"""How far a stage's training is, as a line for people, and how long it will still take.

The pace is that of the last minutes, by a clock that no date moves. Runs that were found finished
raise it for that long and no longer. Knows no Prefect.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from pipelines.orchestration.countdown import about
from pipelines.runs.progress import RunStanding, Standing

# Seconds that the pace looks back
WINDOW = 120.0


@dataclass
class Pace:
    """Optimiser steps a second of one stage."""

    clock: Callable[[], float] = time.monotonic
    # (second, steps done), the oldest first
    seen: deque[tuple[float, int]] = field(default_factory=deque)

    def left(self, now: Standing) -> float | None:
        """Seconds to the last step; None: nothing is known yet."""
        self.seen.append((self.clock(), now.done))
        while len(self.seen) > 2 and self.seen[1][0] <= self.seen[-1][0] - WINDOW:
            self.seen.popleft()
        (began, before), (at, done) = self.seen[0], self.seen[-1]
        return (now.steps - done) * (at - began) / (done - before) if done > before else None


def percent(now: Standing) -> float:
    return 100 * now.done / now.steps if now.steps else 100.0


def line(now: Standing, left: float | None) -> str:
    """`3 of 12 runs, 900 of 3000 steps, loss 1.234, about 4 min left`"""
    parts = [f"{now.finished} of {len(now.runs)} runs", f"{now.done} of {now.steps} steps"]
    if now.loss is not None:
        parts.append(f"loss {now.loss:.3f}")
    if left is not None:
        parts.append(f"about {about(left)} left")
    return ", ".join(parts)


def run_line(run: RunStanding) -> str:
    """Of one run that is at work."""
    loss = "" if run.loss is None else f", loss {run.loss:.3f}"
    return f"{run.name}: {run.done} of {run.steps} steps{loss}"
