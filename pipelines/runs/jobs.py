"""A job: work of a stage as a value, done once and kept in scratch under a hash of what decides it.

A job is a frozen dataclass that can be pickled and written as JSON. Its fields that are paths are
the folders that it reads: what is in them belongs to its key, where they stand does not. Refuses to
know what jobs do, and which process or machine does them.
"""

from __future__ import annotations

import dataclasses
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from pydantic import TypeAdapter

from pipelines.runs.machine import Machine
from pipelines.runs.progress import FINISHED
from pipelines.runs.scratch import alone
from skd.files import write_text
from skd.results.files import text_of
from skd.seals import damaged, seal

Result = TypeVar("Result")
Made = TypeVar("Made", covariant=True)
JOB = "job.json"


class Job(Protocol[Made]):
    """Equal keys, equal results; seconds apart."""

    # Of what `make` gives
    kind: ClassVar[Any]

    @property
    def key(self) -> str:
        """The name of its folder in scratch. Ends with a hash of all that decides the result."""

    def make(self, machine: Machine, folder: Path, line: int) -> Made:
        """Do the work; files may be left in `folder`. line: of the progress bar."""


@dataclass(frozen=True)
class Finished(Generic[Result]):
    result: Result
    # In scratch, with the files that the work has left
    folder: Path


def finish(job: Job[Result], machine: Machine, line: int = 0) -> Finished[Result]:
    """Find or make what the job is for. One process at a time makes it, and the others find it."""
    folder = machine.scratch / job.key
    path = folder / FINISHED
    with alone(folder):
        if path.exists() and (file := damaged(folder)):
            print(f"{folder / file} is damaged or missing: made anew", file=sys.stderr)
            shutil.rmtree(folder)
            describe(job, machine.scratch)
        if not path.exists():
            text = text_of(job.make(machine, folder, line))
            folder.mkdir(parents=True, exist_ok=True)
            seal(folder, {FINISHED: text})
            write_text(path, text)
    return Finished(TypeAdapter(job.kind).validate_json(path.read_bytes()), folder)


def describe(job: Job[Any], scratch: Path) -> None:
    """Write the job beside its work to be, for `python -m pipelines.run KEY`."""
    path = scratch / job.key / JOB
    with alone(scratch / f"{job.key}-{JOB}"):  # not the folder's lock, which who does the job holds
        if not path.exists():
            write_text(path, TypeAdapter(type(job)).dump_json(job).decode())


def folders(job: Job[Any]) -> dict[str, Path]:
    """Field -> folder that the job reads."""
    values = {field.name: getattr(job, field.name) for field in dataclasses.fields(job)}  # type: ignore[arg-type]
    return {name: value for name, value in values.items() if isinstance(value, Path)}
