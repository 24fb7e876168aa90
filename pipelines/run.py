"""One job of a stage by its key: finds what it made, or makes it, and prints its folder.

A stage writes its jobs to `.scratch/KEY/job.json` before it begins. This command does one of them,
as the stage would: after a stage was killed, beside it, or where another program starts the runs.
However often it is called, the work is done once.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError

from pipelines.parameters import At, read_parameters
from pipelines.runs.jobs import JOB, Job, finish
from pipelines.runs.machine import Machine
from pipelines.runs.testing import Testing
from pipelines.runs.training import RunSpec
from pipelines.settings.runtime import Runtime
from pipelines.stages.command import run_command
from pipelines.stages.probe import Probing
from skd.errors import UserError
from skd.results.files import first_complaint

KINDS = RunSpec | Testing | Probing


@dataclass(frozen=True)
class Parameters:
    decoding_batch: Annotated[int, At("evaluate.batch_size")]
    runtime: Runtime


def read_job(key: str, scratch: Path) -> Job[Any]:
    """The job of that key. Raises `UserError` where none is written or it is another one now."""
    path = scratch / key / JOB
    if not path.exists():
        raise UserError(f"{path} is missing: no stage has asked for this run; `dvc repro` does")
    try:
        job: Job[Any] = TypeAdapter(KINDS).validate_json(path.read_bytes())
    except ValidationError as error:
        raise UserError(
            f"{path}: {first_complaint(error)}; remove it and run its stage again"
        ) from None
    if job.key != key:
        raise UserError(
            f"{path}: the code or the models that it starts from have changed, and with them its "
            f"key ({job.key}); run its stage again"
        )
    return job


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m pipelines.run", description=__doc__)
    parser.add_argument("key", help="name of a folder in scratch that holds a job.json")
    key: str = parser.parse_args(argv).key
    parameters = read_parameters(Parameters)
    machine = Machine.of(parameters.runtime, parameters.decoding_batch)
    print(finish(read_job(key, machine.scratch), machine).folder)


if __name__ == "__main__":
    run_command(main)
