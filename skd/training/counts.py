"""What a training run has counted so far, and the columns of its log.

Knows batches and what making them cost. Refuses to know models and losses.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from skd.engine.meter import Phase, Stopwatch
from skd.engine.sequences import TokenBatch
from skd.results.runs import Validation
from skd.training.group import Group
from skd.training.responses import Responses


@dataclass
class RunCounts:
    """Saved with a run's state, and reported at its end."""

    step: int = 0
    best_step: int = 0
    best_metric: float = -math.inf
    # Validations since the best one
    misses: int = 0
    prompts: int = 0
    response_tokens: int = 0
    # Tokens that interleaved sampling emitted: each was a proposal that the teacher judged
    judged_tokens: int = 0
    replaced_tokens: int = 0
    # Tokens that the student proposed, thrown-away ones included
    student_sampled_tokens: int = 0
    teacher_passes: int = 0
    # Tokens that went through the teacher
    teacher_tokens: int = 0
    # Seconds by `Phase`
    phases: dict[str, float] = field(default_factory=dict)
    # Of the best weights; None: there was no validation yet
    validation: Validation | None = None

    @property
    def seconds(self) -> float:
        """Seconds as `skd.engine.meter` counts them, validation included."""
        return sum(self.phases.values())

    @property
    def acceptance_rate(self) -> float | None:
        """Percent of the judged proposals; None: nothing was judged."""
        accepted = self.judged_tokens - self.replaced_tokens
        return 100 * accepted / self.judged_tokens if self.judged_tokens else None

    def spend(self, seconds: Mapping[str, float]) -> None:
        for phase, spent in seconds.items():
            self.phases[phase] = self.phases.get(phase, 0.0) + spent

    def count(self, step: StepCounts, prompts: int) -> None:
        """A batch of so many prompts was trained on."""
        self.prompts += prompts
        self.response_tokens += step.response_tokens
        self.judged_tokens += step.judged_tokens
        self.replaced_tokens += step.replaced_tokens
        self.student_sampled_tokens += step.student_sampled_tokens
        self.teacher_passes += step.teacher_passes
        self.teacher_tokens += step.teacher_tokens

    def totals(self) -> dict[str, float]:
        """What the run has taken up to here: the axes on which methods are compared."""
        return {
            "seconds": self.seconds - self.phases.get(Phase.VALIDATION, 0.0),
            "trained_tokens": self.response_tokens,
            "sampled_tokens": self.student_sampled_tokens,
            "teacher_tokens": self.teacher_tokens,
        }

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> RunCounts:
        validation = values["validation"]
        return RunCounts(
            **{**values, "validation": None if validation is None else Validation(**validation)}
        )


@dataclass(frozen=True)
class StepCounts:
    """What one step trained on, and what making its responses took; 0 where an earlier step did."""

    rows: int
    response_tokens: int
    # Rollouts of interleaved sampling, and the tokens that they emitted
    interleaved: int
    judged_tokens: int
    replaced_tokens: int
    student_sampled_tokens: int
    teacher_passes: int
    teacher_tokens: int

    @staticmethod
    def of(batch: TokenBatch, responses: Responses | None) -> StepCounts:
        """responses: those that were made at this step; None: an earlier step made them."""
        rollouts = () if responses is None else responses.rollouts
        judged = [rollout for rollout in rollouts if rollout.batch.replaced is not None]
        return StepCounts(
            rows=len(batch.tokens),
            response_tokens=batch.response_tokens,
            interleaved=len(judged),
            judged_tokens=sum(rollout.batch.response_tokens for rollout in judged),
            replaced_tokens=sum(rollout.replacements for rollout in judged),
            student_sampled_tokens=sum(rollout.cost.student_tokens for rollout in rollouts),
            teacher_passes=0 if responses is None else responses.teacher_passes,
            teacher_tokens=0 if responses is None else responses.teacher_tokens,
        )

    def of_all(self, group: Group) -> StepCounts:
        """The sums over the processes of a run."""
        return StepCounts(*map(int, group.totals(dataclasses.astuple(self))))

    def columns(self, seconds: float) -> dict[str, Any]:
        """A step's acceptance rate (percent), mean response length and speed for the log."""
        accepted = self.judged_tokens - self.replaced_tokens
        rate = 100 * accepted / max(1, self.judged_tokens)
        return {
            "acceptance_rate": rate if self.interleaved else None,
            "response_length": self.response_tokens / self.rows,
            "tokens_per_second": self.response_tokens / seconds,
        }


def spent(watch: Stopwatch, group: Group) -> dict[str, float]:
    """Seconds by `Phase` of all processes together: what a step took of them, not how long."""
    totals = group.totals([watch.seconds.get(phase, 0.0) for phase in Phase])
    return {phase: seconds for phase, seconds in zip(Phase, totals, strict=True) if seconds}


def open_log(path: Path, step: int) -> TextIO:
    """Append to a log of JSON rows, after cutting what was written behind the state to resume."""
    kept = []
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
    path.write_text("".join(kept), encoding="utf-8")
    return path.open("a", encoding="utf-8")
