"""How far the training runs of a stage are: what the stage announces, and what its logs say.

A stage writes once which runs it is about to train and where their logs will stand. Whoever wants
to see its progress reads that and the last row of each log: nothing is sent, and a stage knows
nobody who looks. Imports nothing heavy. Refuses to know how progress is shown.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import psutil
from pydantic import TypeAdapter

from skd.results.files import write_result

# Beside params.yaml: a file per stage that trains at this moment
PROGRESS = Path(".progress")
LOG, FINISHED = "log.jsonl", "finished.json"
_TAIL = 4096  # bytes: a row of a log is a few hundred


@dataclass(frozen=True)
class PlannedRun:
    # For people; several runs of a stage may have the same
    name: str
    # Where its log stands, and the mark that it is finished
    folder: str
    steps: int


@dataclass(frozen=True)
class Announcement:
    stage: str
    # The id of the process that trains them, or waits for those that do
    process: int
    runs: list[PlannedRun]


@dataclass(frozen=True)
class RunStanding:
    """How far one run is."""

    name: str
    steps: int
    # Optimiser steps; all of them where it is finished, stopped early or not
    done: int
    finished: bool
    # Of its last step; None: it has not begun
    loss: float | None


@dataclass(frozen=True)
class Standing:
    """How far the runs of one stage are."""

    stage: str
    runs: list[RunStanding]

    @property
    def finished(self) -> int:
        return sum(run.finished for run in self.runs)

    @property
    def steps(self) -> int:
        return sum(run.steps for run in self.runs)

    @property
    def done(self) -> int:
        return sum(run.done for run in self.runs)

    @property
    def training(self) -> list[RunStanding]:
        """The runs that are at work, as far as a log can say so."""
        return [run for run in self.runs if run.done and not run.finished]

    @property
    def loss(self) -> float | None:
        """The mean over the runs that are at work."""
        losses = [run.loss for run in self.training if run.loss is not None]
        return sum(losses) / len(losses) if losses else None


@runtime_checkable
class Trains(Protocol):
    """A job that trains; others, such as tests, are not shown."""

    # For people
    name: str
    # Optimiser steps
    steps: int
    # Of its folder in scratch
    key: str


def planned(jobs: Iterable[object], scratch: Path) -> list[PlannedRun]:
    """What is to be announced of a stage's jobs."""
    return [
        PlannedRun(job.name, str(scratch / job.key), job.steps)
        for job in jobs
        if isinstance(job, Trains)
    ]


@contextmanager
def announced(runs: Sequence[PlannedRun]) -> Iterator[Path | None]:
    """Say that these runs are being trained, as long as the body lasts; yields the file.

    None: there is nothing to say.
    """
    if not runs:
        yield None
        return
    # DVC names the stage to its command; by hand it is called by the command's name.
    stage = os.environ.get("DVC_STAGE") or Path(sys.argv[0]).stem
    path = PROGRESS / f"{stage}.json"
    write_result(path, Announcement(stage, os.getpid(), list(runs)))
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def read_announcement(path: Path) -> Announcement | None:
    """None: the stage trains no longer, or its process is gone."""
    try:
        made = TypeAdapter(Announcement).validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    return made if psutil.pid_exists(made.process) else None


def standing(root: Path, stage: str) -> Standing | None:
    """How far the stage of the project at `root` is; None: it trains nothing now."""
    made = read_announcement(root / PROGRESS / f"{stage}.json")
    return None if made is None else Standing(stage, [_run(root, run) for run in made.runs])


def standings(root: Path) -> list[Standing]:
    """Of all stages that train in the project now."""
    names = sorted(path.stem for path in (root / PROGRESS).glob("[!.]*.json"))
    found = (standing(root, name) for name in names)
    return [one for one in found if one is not None]


def _run(root: Path, run: PlannedRun) -> RunStanding:
    folder = root / run.folder
    if (folder / FINISHED).exists():
        return RunStanding(run.name, run.steps, run.steps, finished=True, loss=None)
    row = last_row(folder / LOG)
    done, loss = (0, None) if row is None else (int(row["step"]), float(row["loss"]))
    return RunStanding(run.name, run.steps, done, finished=False, loss=loss)


def last_row(log: Path) -> dict[str, Any] | None:
    """The last whole row of a log that is being written; reads its end alone."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
            lines = file.read().rpartition(b"\n")[0].splitlines()
    except FileNotFoundError:
        return None
    row: dict[str, Any] | None = json.loads(lines[-1]) if lines else None
    return row
