"""What a training run has counted so far, and its log of one JSON row per step.

Knows batches and what making them cost; neither models nor losses.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skd.engine.meter import VALIDATION
from skd.engine.sequences import Batch
from skd.training.responses import Responses


@dataclass
class Facts:
    """Saved with a run's state and reported at its end."""

    step: int = 0
    best_step: int = 0
    best_metric: float = -math.inf
    misses: int = 0  # validations since the best one
    prompts: int = 0
    response_tokens: int = 0
    judged_tokens: int = 0  # emitted by interleaved sampling
    replaced_tokens: int = 0
    student_sampled_tokens: int = 0  # proposed, thrown-away ones included
    teacher_passes: int = 0
    teacher_tokens: int = 0  # that went through them
    phases: dict[str, float] = field(default_factory=dict)  # seconds by phase of `skd.engine.meter`
    validation: dict[str, float] = field(default_factory=dict)  # of the best weights

    @property
    def seconds(self) -> float:
        """Seconds as `skd.engine.meter` counts them, validation included."""
        return sum(self.phases.values())

    def spend(self, seconds: Mapping[str, float]) -> None:
        for phase, spent in seconds.items():
            self.phases[phase] = self.phases.get(phase, 0.0) + spent

    def count(self, batch: Batch, made: Responses | None) -> None:
        """A batch trained on; `made` where it is the first of those made together."""
        self.prompts += len(batch.tokens)
        self.response_tokens += batch.response_tokens
        if made is None:
            return
        self.teacher_passes += made.teacher_passes
        self.teacher_tokens += made.teacher_tokens
        if (rollout := made.rollout) is not None:
            if rollout.batch.replaced is not None:
                self.judged_tokens += rollout.batch.response_tokens
            self.replaced_tokens += rollout.replacements
            self.student_sampled_tokens += rollout.cost.student_tokens

    def totals(self) -> dict[str, float]:
        """What the run has taken up to here: the axes on which methods are compared."""
        return {
            "seconds": self.seconds - self.phases.get(VALIDATION, 0.0),
            "trained_tokens": self.response_tokens,
            "sampled_tokens": self.student_sampled_tokens,
            "teacher_tokens": self.teacher_tokens,
        }


def response_row(batch: Batch, made: Responses | None, seconds: float) -> dict[str, Any]:
    """A step's acceptance rate (percent), mean response length and speed."""
    acceptance = None
    rollout = None if made is None else made.rollout
    if rollout is not None and rollout.batch.replaced is not None:
        acceptance = 100 * rollout.accepted / max(1, rollout.batch.response_tokens)
    return {
        "acceptance_rate": acceptance,
        "response_length": batch.response_tokens / len(batch.tokens),
        "tokens_per_second": batch.response_tokens / seconds,
    }


def open_log(path: Path, step: int) -> Any:
    """Append to the log, first cutting what was written after the state that is resumed."""
    kept = []
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
    path.write_text("".join(kept), encoding="utf-8")
    return path.open("a", encoding="utf-8")
