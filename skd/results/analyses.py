"""What the analyses write: sweeps, equal budgets, other students, agreement and drafts."""

from __future__ import annotations

from pydantic.dataclasses import dataclass

from skd.models.settings import StudentModel
from skd.results.pair import ModelSize
from skd.results.runs import Seeds, TrainedRun, Validation
from skd.results.took import Took
from skd.settings import STRICT


# ---------------------------------------------------------------------- sweeps
@dataclass(frozen=True, config=STRICT)
class SweepRuns:
    """One sweep: a method trained again for each value of one setting, scored on validation."""

    method: str
    # Path of the setting in the method's row
    setting: str
    seeds: list[int]
    # None: all of the validation split
    validation_examples: int | None
    # Task -> name of `skd.tasks.TASKS`
    kinds: dict[str, str]
    # Task -> label of a value -> seed -> run
    runs: dict[str, dict[str, Seeds]]


@dataclass(frozen=True, config=STRICT)
class SweepResult:
    """metrics/sweep.json"""

    took: Took
    sweeps: dict[str, SweepRuns]


# -------------------------------------------------------------------- fairness
@dataclass(frozen=True, config=STRICT)
class TuningTry:
    """One try of tuning a method, scored on validation."""

    method: str
    learning_rate: float
    # Path of the other setting that was tuned
    setting: str
    # Label of its value
    value: str
    # Validation metric, percent
    metric: float
    chosen: bool


@dataclass(frozen=True, config=STRICT)
class BudgetRun:
    """A tuned method trained within one budget, with its scores on the test split."""

    run: TrainedRun
    # Metric -> percent
    test: dict[str, float]


@dataclass(frozen=True, config=STRICT)
class BudgetRuns:
    """A method within one budget."""

    # Optimiser steps that fit into it
    steps: int
    # By seed
    seeds: dict[str, BudgetRun]


@dataclass(frozen=True, config=STRICT)
class TaskFairness:
    # A name of `skd.tasks.TASKS`
    kind: str
    tries: list[TuningTry]
    # Budget held equal (steps, tokens, seconds) -> method -> its runs
    views: dict[str, dict[str, BudgetRuns]]


@dataclass(frozen=True, config=STRICT)
class FairnessResult:
    """metrics/fairness.json"""

    took: Took
    seeds: list[int]
    tasks: dict[str, TaskFairness]


# --------------------------------------------------------------------- scaling
@dataclass(frozen=True, config=STRICT)
class ScalingResult:
    """metrics/scaling/STUDENT.json"""

    took: Took
    student: StudentModel
    size: ModelSize
    # Task -> name of `skd.tasks.TASKS`
    kinds: dict[str, str]
    # Task -> seed -> the student before distillation
    starts: dict[str, dict[str, Validation]]
    # Task -> method -> seed -> run
    runs: dict[str, dict[str, Seeds]]


# ----------------------------------------------------------------------- probe
@dataclass(frozen=True, config=STRICT)
class Agreement:
    """Student beside teacher: means over the response tokens of a batch."""

    # KL(teacher ‖ student), nats per token
    kl: float
    # Rank correlation of the two models' logits over the teacher's most likely tokens
    spearman: float
    # Percent of positions where both have the same most likely token
    first: float
    # Quantile -> the teacher's rank of the tokens (0: its most likely one)
    ranks: dict[str, float]
    # K -> percent of the tokens among the teacher's K most likely
    within: dict[str, float]
    # First token -> (kl, percent within the largest K) from there in the response on
    by_position: dict[str, tuple[float, float]]


@dataclass(frozen=True, config=STRICT)
class JudgedProposals:
    """What the teacher thought of the student's proposals, along corrected prefixes."""

    # First rank of a bucket -> percent of the proposals
    ranks: dict[str, float]
    # First token of a bucket -> percent of the proposals there that were accepted
    by_position: dict[str, float]


@dataclass(frozen=True, config=STRICT)
class DecodingSpeed:
    """One way of decoding the teacher, one prompt at a time."""

    # None: the library refused this pair
    tokens_per_cpu_second: float | None
    # Percent of the drafted tokens; None: nobody counted them
    accepted: float | None = None
    # Tokens per teacher pass; None likewise
    acceptance_length: float | None = None
    # Outputs that are the teacher's own greedy ones; None: not greedy, or refused
    equal: int | None = None


@dataclass(frozen=True, config=STRICT)
class DraftWorth:
    """What a student is worth as a draft for its teacher."""

    prompts: int
    # Way of decoding -> its speed
    ways: dict[str, DecodingSpeed]
    # Why transformers refused assisted generation; None: it did not
    assisted_reason: str | None


@dataclass(frozen=True, config=STRICT)
class ModelProbe:
    # Kind of prefix (ground_truth, student, interleaved) -> agreement along it
    agreement: dict[str, Agreement]
    proposals: JudgedProposals
    draft: DraftWorth


@dataclass(frozen=True, config=STRICT)
class ProbeResult:
    """metrics/probe.json"""

    took: Took
    seed: int
    # Of the interleaved prefixes
    k: int
    # Task -> model -> what was found
    tasks: dict[str, dict[str, ModelProbe]]
    # Why nothing was; None: it was
    not_measured: str | None = None
