"""How this machine runs the experiment. No stage depends on it."""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass

from skd.settings import STRICT, Positive


@dataclass(frozen=True, config=STRICT)
class Runtime:
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    # Processes side by side; None: one per core, one more where runs train
    workers: Positive | None = None
    progress: bool = True
    # Whether `base` refuses what this device's memory cannot hold (pipelines/plan.py)
    plan: bool = True
    # Resumable states, finished seeds, COMET scores; safe to delete
    scratch: str = ".scratch"
