"""What one training run is set by: its optimisation, its method's row, its budgets.

Units and ranges stand above each field. Knows no torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from skd.engine.settings import Acceptance, Sampling
from skd.settings import (
    STRICT,
    Fraction,
    NotNegative,
    Positive,
    PositiveNumber,
    Weights,
    describe_errors,
    label,
    plain,
)
from skd.training.methods import METHODS


@dataclass(frozen=True, config=STRICT)
class Adapter:
    # Low-rank matrices beside frozen weights (LoRA); QLoRA where these are held in nf4
    rank: Positive = 16
    # The adapter's share is alpha / rank
    alpha: PositiveNumber = 32
    # Names of linear layers; None: all of them but the output embedding
    targets: Annotated[list[str], Field(min_length=1)] | None = None


@dataclass(frozen=True, config=STRICT)
class Optimisation:
    # Optimiser steps
    steps: Positive
    # Prompts per optimiser step
    batch_size: Positive
    learning_rate: PositiveNumber
    # Rows per forward, a response each; None: the whole batch
    micro_batch_size: Positive | None = None
    # Share of the steps
    warmup: Fraction = 0.1
    # After warm-up, to 0
    decay: Literal["linear", "cosine", "none"] = "linear"
    weight_decay: NotNegative = 0.0
    # Gradient norm
    clip: PositiveNumber = 1.0
    # Of the student while it trains: of its attention, and wherever else its family has dropout
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
    # In what the trained model is held: bfloat16 with master copies in fp32, which the optimiser
    # has; int8 and nf4 are never trained, and need an adapter
    weights: Weights = "float32"
    # adamw_8bit: moments in 8 bits, in blocks
    optimiser: Literal["adamw", "adamw_8bit"] = "adamw"
    # None: all weights are trained
    adapter: Adapter | None = None

    def __post_init__(self) -> None:
        if self.weights in ("int8", "nf4") and self.adapter is None:
            raise ValueError(
                f"weights in {self.weights} cannot be trained; set `adapter` beside it, or take "
                "float32 or bfloat16"
            )

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
    name: Literal[
        "forward_kl",
        "reverse_kl",
        "jsd",
        "skew_kl",
        "skew_rkl",
        "total_variation",
        "adaptive_kl",
        "entropy_aware",
    ] = "forward_kl"
    # jsd: weight of the teacher; skew_*: mixture share α; adaptive_kl: mass of the teacher's head;
    # entropy_aware: nats
    beta: Fraction = 0.5
    # Of both models' distributions in the divergence. No sampling reads it.
    temperature: PositiveNumber = 1.0
    # Of the teacher's alone, below `temperature` to sharpen it; None: the same
    teacher_temperature: PositiveNumber | None = None
    # The student is asked for teacher·student^veto, normalised; falls to 0 over the run's steps
    # (Veto, arXiv 2601.07155)
    veto: Fraction = 0.0

    def __post_init__(self) -> None:
        if self.name.startswith("skew") and self.beta == 1.0:
            raise ValueError("beta 1 compares a model with itself; choose less")

    @property
    def plain(self) -> bool:
        """Whether it compares the models' own distributions as they are."""
        return self.veto == 0.0 and self.temperature == self.target_temperature == 1.0

    @property
    def target_temperature(self) -> float:
        own = self.teacher_temperature
        return self.temperature if own is None else own

    def at(self, progress: float) -> Divergence:
        """As it is when this share of the run is done."""
        return dataclasses.replace(self, veto=self.veto * (1.0 - progress))


# How the teacher's own responses are decoded: its most likely tokens, or its distribution's samples
DECODING = {"greedy": Sampling(temperature=0.0), "sample": Sampling(temperature=1.0)}


def _known_method(name: str) -> str:
    if name not in METHODS:
        raise ValueError(f"there is no such method; choose of {', '.join(METHODS)}")
    return name


@dataclass(frozen=True, config=STRICT)
class MethodSettings:
    # A name of `skd.training.methods.METHODS`
    method: Annotated[str, AfterValidator(_known_method)]
    # Where the student begins: fine-tuned on the task first, or as it is
    student_init: Literal["sft", "instruct"] = "sft"
    # How the teacher's own responses are made, for methods that train on them
    decoding: Literal["greedy", "sample"] = "greedy"
    divergence: Divergence = Field(default_factory=Divergence)
    acceptance: Acceptance = Field(default_factory=Acceptance)
    # Peak learning rate; None: that of `distill.optimisation`
    learning_rate: PositiveNumber | None = None


Settings = TypeVar("Settings", MethodSettings, Distill)


def changed(settings: Settings, changes: Mapping[str, Any], name: str) -> Settings:
    """The same settings with other values at these paths. Raises `ValueError` for a wrong one.

    name: of the settings, for messages.
    """
    values = plain(settings)
    for path, value in changes.items():
        _put(values, path, value, name)
    try:
        return TypeAdapter(type(settings)).validate_python(values)
    except ValidationError as error:
        given = ", ".join(f"{path} = {label(value)}" for path, value in changes.items())
        what = "; ".join(describe_errors(error))
        raise ValueError(f"{name} with {given}: {what}") from None


def _put(settings: Any, path: str, value: Any, name: str) -> None:
    *sections, last = path.split(".")
    for section in sections:
        settings = settings.get(section) if isinstance(settings, dict) else None
    if not isinstance(settings, dict) or last not in settings:
        raise ValueError(f"{path!r} is no setting of {name}")
    if isinstance(settings[last], dict) and not isinstance(value, Mapping):
        raise ValueError(
            f"{path!r} is a section; its values are mappings, or name one of its settings "
            f"({', '.join(f'{path}.{key}' for key in settings[last])})"
        )
    settings[last] = value
