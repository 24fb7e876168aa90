"""How this machine runs the experiment. No stage depends on it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from skd.settings import STRICT, PathText, Positive


@dataclass(frozen=True, config=STRICT)
class Runtime:
    # Who does the runs: processes of this machine, or the workers of a Ray cluster
    engine: Literal["local", "ray"] = "local"
    # auto: the first accelerator; the cores where there is none or models are tiny
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    # Where the teacher's layers stand: on a device (cpu, cuda:1), or with `offload` in the host's
    # memory, from which each is copied to `device` while it computes; None: on `device`
    teacher_device: Annotated[str, Field(pattern=r"^(cpu|cuda:\d+|offload)$")] | None = None
    # Processes side by side; None: one per core, one more where runs train
    workers: Positive | None = None
    # Of each training run, which they share (docs/clusters.md): a core or an accelerator each
    processes: Positive = 1
    # fsdp: each process holds a part of the student's layers and of their moments; None: all of it
    shard: Literal["fsdp"] | None = None
    # Runs side by side on each accelerator
    per_device: Positive = 1
    # Whether bars are shown; `make watch` needs none
    progress: bool = True
    # What records training runs as they go (docs/progress.md); None: nothing but the logs
    tracker: Literal["mlflow", "tensorboard", "wandb", "dvclive"] | None = None
    # Whether `base` refuses what this device's memory cannot hold (pipelines/plan.py)
    plan: bool = True
    # Resumable states, finished seeds, COMET scores; safe to delete
    scratch: PathText = ".scratch"

    def __post_init__(self) -> None:
        if self.processes == 1:
            if self.shard is not None:
                raise ValueError(
                    f"shard: {self.shard} cuts a student into a part for each process of its run; "
                    "set `processes` above 1 beside it, or remove it"
                )
            return
        if self.engine == "ray":
            raise ValueError(
                f"processes: {self.processes} share a run on one machine, and engine: ray gives a "
                "run to one worker of one core or GPU; set engine: local, or processes: 1"
            )
        if self.device == "mps":
            raise ValueError(
                f"processes: {self.processes} need an accelerator each, and device: mps is one; "
                "set processes: 1"
            )
        if self.teacher_device not in (None, "cpu", "offload", "cuda:1"):
            raise ValueError(
                f"teacher_device: {self.teacher_device}: each of several processes sees its own "
                "device as cuda:0 and its teacher's as cuda:1; set teacher_device: cuda:1"
            )
