"""What training runs leave: their results, and what they cost."""

from __future__ import annotations

from pydantic.dataclasses import dataclass

from skd.results.took import Took
from skd.settings import STRICT
from skd.training.settings import MethodSettings


@dataclass(frozen=True, config=STRICT)
class Validation:
    """A model on the validation rows that its training used."""

    # The task's primary metric, percent
    metric: float
    # Nats per token of the ground truth
    loss: float | None = None
    # KL(teacher ‖ student) along the ground truth, nats per token; None: there is no teacher
    kl: float | None = None


@dataclass(frozen=True, config=STRICT)
class RunCost:
    """What one training run took; two equal runs differ in this alone.

    Seconds are of processor time on a CPU and of wall time on an accelerator.
    """

    # Validation included
    seconds: float
    # Validation apart
    training_seconds: float
    # Phase of `skd.engine.meter` -> seconds
    phases: dict[str, float]
    # MiB: the process's resident memory on a CPU, allocated memory on an accelerator
    peak_memory: float | None


@dataclass(frozen=True, config=STRICT)
class Preparation:
    """What a run took before its first step: more steps take no more of it."""

    # To make the teacher's own responses, and its states at known responses
    seconds: float = 0.0
    # Of the teacher's own responses
    teacher_sampled_tokens: int = 0


@dataclass(frozen=True, config=STRICT)
class TrainedRun:
    """One finished training run: a method on a task with a seed."""

    steps: int
    best_step: int
    # Prompts trained on, repetitions counted
    prompts: int
    # Response tokens that entered the loss
    response_tokens: int
    # Tokens that the student proposed, thrown-away ones included
    student_sampled_tokens: int
    # Tokens that the teacher drew: replacements, and its own responses once
    teacher_sampled_tokens: int
    teacher_passes: int
    # Tokens that went through the teacher
    teacher_tokens: int
    # Percent of the judged proposals; None: nothing was judged
    acceptance_rate: float | None
    # Of the weights that were kept
    validation: Validation
    training_rows: int
    # Prompts over the budget
    dropped_prompts: int
    # Responses over the budget, which lost their end
    cut_responses: int
    cost: RunCost
    # Part of the numbers above
    preparation: Preparation

    @property
    def generated_tokens(self) -> int:
        """Tokens that one of the two models drew for this run."""
        return self.student_sampled_tokens + self.teacher_sampled_tokens


# Seed -> its run. Seeds are texts, as JSON has them.
Seeds = dict[str, TrainedRun]


@dataclass(frozen=True, config=STRICT)
class RunBudget:
    """What every run of a stage was given."""

    steps: int
    # Prompts per optimiser step
    batch_size: int
    # Both multiplied
    prompts: int


@dataclass(frozen=True, config=STRICT)
class DistillResult:
    """metrics/distill/METHOD.json"""

    took: Took
    method: MethodSettings
    budget: RunBudget
    # Task -> seed -> run
    tasks: dict[str, Seeds]


@dataclass(frozen=True, config=STRICT)
class ValidationScores:
    """models/students/METHOD/TASK/validation.json: the scores that choose among the students"""

    # Seed -> the task's primary metric, percent
    seeds: dict[str, float]


@dataclass(frozen=True, config=STRICT)
class SftResult:
    """metrics/sft.json"""

    took: Took
    # Task -> folder of the model under models/sft/TASK -> run
    tasks: dict[str, dict[str, TrainedRun]]
