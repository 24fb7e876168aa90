"""Experiment trackers, fed from the rows that training runs log: one record a run.

A process of its own, which the stage starts and ends (`pipelines/runs/tracking.py`). It follows the
logs of the announced runs, so it knows neither models nor training. Runs that were finished
before are not recorded again. Nothing leaves this machine unless the tracker's own environment
variables say where to: MLFLOW_TRACKING_URI, WANDB_MODE=online.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import select
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pipelines.runs.progress import FINISHED, LOG, PlannedRun, read_announcement

RECORDS = Path("trackers")
PROJECT = "skd"
# Seconds between two looks at the logs
EVERY = 2.0


class Record(Protocol):
    """What a tracker keeps of one run."""

    def log(self, step: int, values: dict[str, float]) -> None: ...

    def close(self) -> None: ...


# --------------------------------------------------------------------------- trackers
class Mlflow:
    def __init__(self, run: PlannedRun, stage: str) -> None:
        import mlflow

        uri = os.environ.get("MLFLOW_TRACKING_URI") or (RECORDS / "mlflow").resolve().as_uri()
        # Files suffice for a few hundred runs. MLflow 3 asks for this word before it writes them.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        self._client = mlflow.MlflowClient(tracking_uri=uri)
        found = self._client.get_experiment_by_name(PROJECT)
        experiment = found.experiment_id if found else self._client.create_experiment(PROJECT)
        for earlier in self._client.search_runs([experiment], f"tags.key = '{key(run)}'"):
            self._client.delete_run(earlier.info.run_id)
        tags = {"key": key(run), "stage": stage}
        made = self._client.create_run(experiment, run_name=run.name, tags=tags)
        self._id = made.info.run_id

    def log(self, step: int, values: dict[str, float]) -> None:
        from mlflow.entities import Metric

        rows = [Metric(name, value, 0, step) for name, value in values.items()]
        self._client.log_batch(self._id, metrics=rows)

    def close(self) -> None:
        self._client.set_terminated(self._id)


class Tensorboard:
    def __init__(self, run: PlannedRun, stage: str) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = emptied(RECORDS / "tensorboard" / stage / key(run))
        self._writer = SummaryWriter(str(folder))  # type: ignore[no-untyped-call]

    def log(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)  # type: ignore[no-untyped-call]

    def close(self) -> None:
        self._writer.close()  # type: ignore[no-untyped-call]


class Wandb:
    def __init__(self, run: PlannedRun, stage: str) -> None:
        import wandb

        RECORDS.mkdir(exist_ok=True)
        os.environ.setdefault("WANDB_MODE", "offline")
        self._run = wandb.init(
            project=PROJECT,
            name=run.name,
            group=stage,
            config={"key": key(run)},
            dir=str(RECORDS),
            reinit="create_new",  # several runs at once
        )

    def log(self, step: int, values: dict[str, float]) -> None:
        self._run.log(values, step=step)

    def close(self) -> None:
        self._run.finish()


class Dvclive:
    def __init__(self, run: PlannedRun, stage: str) -> None:
        from dvclive import Live

        folder = emptied(RECORDS / "dvclive" / stage / key(run))
        # DVC itself saves experiments, and with all outputs
        self._live = Live(str(folder), save_dvc_exp=False, dvcyaml=None)

    def log(self, step: int, values: dict[str, float]) -> None:
        self._live.step = step
        for name, value in values.items():
            self._live.log_metric(name, value)
        self._live.make_summary()

    def close(self) -> None:
        self._live.end()


TRACKERS: dict[str, Callable[[PlannedRun, str], Record]] = {
    "mlflow": Mlflow,
    "tensorboard": Tensorboard,
    "wandb": Wandb,
    "dvclive": Dvclive,
}


def key(run: PlannedRun) -> str:
    """The name of its folder in scratch: the same run has the same record."""
    return Path(run.folder).name


def emptied(folder: Path) -> Path:
    """A run that goes on where it was killed is recorded anew, from its first step."""
    shutil.rmtree(folder, ignore_errors=True)
    return folder


# -------------------------------------------------------------------------- following
@dataclass
class Followed:
    """A run's log, read as it grows, into the tracker's record of it."""

    run: PlannedRun
    begin: Callable[[], Record]
    record: Record | None = None
    # Bytes that were read, and the last step among them
    read: int = 0
    step: int = 0
    closed: bool = field(default=False)

    def follow(self) -> None:
        """Take over the rows that have come."""
        if self.closed:
            return
        log, finished = (Path(self.run.folder) / name for name in (LOG, FINISHED))
        over = finished.exists()  # before the log is read, which then is whole
        if log.exists():
            self._take(log)
        if over:
            self.close()

    def close(self) -> None:
        if self.record is not None and not self.closed:
            self.record.close()
        self.closed = True

    def _take(self, log: Path) -> None:
        if log.stat().st_size < self.read:  # it was cut to the state that the run resumes from
            self.read = 0
        with log.open("rb") as file:
            file.seek(self.read)
            whole = file.read().rpartition(b"\n")[0]
        self.read += len(whole) + bool(whole)
        for line in whole.splitlines():
            row = json.loads(line)
            if row["step"] > self.step:
                self.step = row["step"]
                self.record = self.record or self.begin()
                self.record.log(self.step, numbers(row))


def numbers(row: dict[str, Any]) -> dict[str, float]:
    """What a row says beside its step, where it says anything."""
    return {
        name: float(value)
        for name, value in row.items()
        if name != "step" and value is not None and math.isfinite(value)
    }


def follow_all(tracker: str, announcement: Path, wait: Callable[[], bool]) -> None:
    """Record the announced runs until `wait` says that the stage is over."""
    made = read_announcement(announcement)
    if made is None:
        return
    begin = TRACKERS[tracker]
    followed = [
        Followed(run, lambda run=run: begin(run, made.stage))  # type: ignore[misc]
        for run in made.runs
        if not (Path(run.folder) / FINISHED).exists()
    ]
    over = False
    while not over:
        over = wait()
        for one in followed:
            one.follow()
    for one in followed:
        one.close()


def _input_ends() -> bool:
    """Whether standard input has ended, after waiting a little for that."""
    ready, _, _ = select.select([sys.stdin], [], [], EVERY)
    return bool(ready)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tracker", choices=TRACKERS)
    parser.add_argument("announcement", type=Path, help="which runs a stage trains")
    arguments = parser.parse_args(argv)
    # An interrupt is for the stage, whose end is this one's.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    follow_all(arguments.tracker, arguments.announcement, _input_ends)


if __name__ == "__main__":
    main()
