"""What one training run is set by: its optimisation, its method's row, its budgets.

Units and ranges stand above each field. Knows no torch.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from skd.engine.settings import Acceptance, Sampling
from skd.settings import STRICT, Fraction, Positive


@dataclass(frozen=True, config=STRICT)
class Optimisation:
    # Optimiser steps
    steps: Positive
    # Prompts per optimiser step
    batch_size: Positive
    learning_rate: float
    # Prompts per forward; None: the whole batch
    micro_batch_size: Positive | None = None
    # Share of the steps
    warmup: Fraction = 0.1
    # After warm-up, to 0
    decay: Literal["linear", "cosine", "none"] = "linear"
    weight_decay: float = 0.0
    # Gradient norm
    clip: float = 1.0
    # Of the student's attention, while it trains
    dropout: Fraction = 0.0
    # Optimiser steps; None: at the end only
    validate_every: Positive | None = None
    # First rows of the split; None: all
    validation_examples: Positive | None = None
    # Validations without improvement before stopping; None: never
    patience: Positive | None = None
    # Optimiser steps, at least, between resumable states
    checkpoint_every: Positive = 50
    gradient_checkpointing: bool = False

    @property
    def prompts(self) -> int:
        return self.steps * self.batch_size

    @property
    def validations(self) -> int:
        return -(-self.steps // self.validate_every) if self.validate_every else 1


@dataclass(frozen=True, config=STRICT)
class Sft:
    # None: the teacher is already tuned on the tasks
    teacher: Optimisation | None
    student: Optimisation


@dataclass(frozen=True, config=STRICT)
class Distill:
    optimisation: Optimisation
    student_sampling: Sampling = Field(default_factory=Sampling)
    teacher_sampling: Sampling = Field(default_factory=Sampling)
    # γ: tokens the student proposes per teacher pass; auto: by what was accepted so far
    block_size: Positive | Literal["auto"] = "auto"
    # Optimiser steps whose responses are sampled together; 1: on-policy
    rollout_steps: Positive = 1
    # The teacher's states at known responses, on disk; auto: where they are asked for again
    teacher_cache: Literal["auto", "always", "never"] = "auto"


@dataclass(frozen=True, config=STRICT)
class Divergence:
    name: Literal["forward_kl", "reverse_kl", "jsd", "skew_kl", "skew_rkl", "total_variation"] = (
        "forward_kl"
    )
    # jsd: weight of the teacher; skew_*: mixture share α
    beta: Fraction = 0.5

    def __post_init__(self) -> None:
        if self.name.startswith("skew") and self.beta == 1.0:
            raise ValueError("beta 1 compares a model with itself; choose less")


@dataclass(frozen=True, config=STRICT)
class MethodSettings:
    method: Literal[
        "sft",
        "seq_kd",
        "supervised_kd",
        "on_policy_kd",
        "on_policy_hard",
        "imit_kd",
        "skd",
        "skd_mixed_loss",
        "mixed_skd",
        "two_stage_kd",
    ]
    student_init: Literal["sft", "instruct"] = "sft"
    # Seq_kd: how the teacher's responses were made
    decoding: Literal["greedy", "sample"] = "greedy"
    divergence: Divergence = Field(default_factory=Divergence)
    acceptance: Acceptance = Field(default_factory=Acceptance)
    # None: distill.optimisation's
    learning_rate: float | None = None
