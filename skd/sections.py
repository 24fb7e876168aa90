"""The sections of `params.yaml` as types: every setting, its unit, its sentinel, its range.

What one section says of another is `skd.config`'s matter. Knows no DVC, no Prefect and no torch.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

STRICT = ConfigDict(extra="forbid", strict=False)

Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Probability = Annotated[float, Field(gt=0.0, le=1.0)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]


# ---------------------------------------------------------------- experiment
@dataclass(frozen=True, config=STRICT)
class Experiment:
    tasks: list[Name]  # rows of `data`, in report order
    methods: list[Name]  # rows of `methods`, in report order
    seeds: list[int]  # each draws the student's training subset, its order and its sampling
    sweeps: list[Name]  # rows of `sweeps`, in report order
    test_sets: list[Name]  # rows of `data` that are only tested, in report order
    fairness: list[Name]  # tasks on which `fairness` tunes and compares methods
    students: list[Name]  # rows of `scaling.students`, in report order


# ---------------------------------------------------------------------- data
@dataclass(frozen=True, config=STRICT)
class Columns:
    source: str  # column of the input text
    target: str | None = None  # column of the training reference; None: the first of `references`
    references: list[str] = Field(
        default_factory=list
    )  # more reference columns (text or list of text)
    answer: str | None = None  # column of the final answer; it ends the target as "#### answer"
    skip: dict[str, str] = Field(
        default_factory=dict
    )  # column -> text; rows that hold it are left out and counted


@dataclass(frozen=True, config=STRICT)
class Procedural:
    kind: Literal["procedural"]


@dataclass(frozen=True, config=STRICT)
class Files:
    kind: Literal["files"]
    columns: Columns
    train: str | None = None  # path of a .jsonl, .json, .csv or .parquet file
    validation: str | None = None  # None: taken from the end of the shuffled train file
    test: str | None = None  # None: likewise


@dataclass(frozen=True, config=STRICT)
class Hub:
    kind: Literal["hub"]
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]  # commit: a branch moves
    preset: (
        Literal["flores_plus", "dialogsum", "gsm8k", "svamp", "asdiv", "gsm_plus", "math"] | None
    ) = None  # known ids, columns and splits
    id: str | None = None  # None: the preset's
    config: str | None = None
    columns: Columns | None = None
    splits: dict[str, str] | None = (
        None  # our split name -> theirs; a missing one is cut from train
    )


Source = Annotated[Procedural | Files | Hub, Field(discriminator="kind")]


@dataclass(frozen=True, config=STRICT)
class Data:
    task: Literal[
        "translation", "summarization", "arithmetic"
    ]  # prompt, answer extraction, metrics
    source: Source
    train_size: Positive | None = (
        None  # rows; None: all there are (procedural sources need a number)
    )
    validation_size: Positive | None = None
    test_size: Positive | None = None
    seed: int = 0  # of generation, shuffling and cutting; not an experiment seed
    duplicates: Literal["error", "drop"] = "error"  # a source text that stands in two splits
    prompt: str | None = None  # template with {source}; None: the task's
    license: str | None = None  # for the data card and the model card
    # a task of experiment.tasks: its students and teacher are tested on this row, which trains none
    tests: Name | None = None

    def __post_init__(self) -> None:
        if isinstance(self.source, Files) and self.tests is None and self.source.train is None:
            raise ValueError(
                "source.train is missing; name a file to train on, or in `tests` the task whose "
                "models are tested on this row"
            )
        if isinstance(self.source, Files) and self.tests is not None and self.source.test is None:
            raise ValueError("source.test is missing; a row with `tests` is only tested")
        if isinstance(self.source, Procedural) and self.tests is not None:
            raise ValueError("a row with `tests` reads files or the Hub; this one is procedural")


@dataclass(frozen=True, config=STRICT)
class Budget:
    max_prompt_tokens: Positive  # template included
    max_new_tokens: Positive  # end-of-sequence included
    student_examples: Positive | None = None  # drawn per seed from train; None: all
    too_long: Literal["error", "drop", "truncate"] = "error"  # a prompt over max_prompt_tokens


# -------------------------------------------------------------------- models
@dataclass(frozen=True, config=STRICT)
class ProceduralModel:
    kind: Literal["procedural"]
    hidden_size: Positive
    layers: Positive
    heads: Positive
    steps: Count  # of pretraining on the base corpora; 0: random weights
    batch_size: Positive = 32
    learning_rate: float = 3e-3
    seed: int = 0


@dataclass(frozen=True, config=STRICT)
class FolderModel:
    kind: Literal["folder"]
    path: str  # a Hugging Face folder with safetensors weights
    license: str | None = None  # for the model card; None: as its README.md's front matter says


@dataclass(frozen=True, config=STRICT)
class HubModel:
    kind: Literal["hub"]
    id: str
    revision: str = "main"  # resolved to a commit, which is recorded
    license: str | None = None  # for the model card; None: as its README.md's front matter says


@dataclass(frozen=True, config=STRICT)
class LayersModel:
    kind: Literal["layers"]  # a student made of the teacher's layers
    keep: list[int]  # layer numbers of the teacher, in order


StudentModel = Annotated[
    ProceduralModel | FolderModel | HubModel | LayersModel, Field(discriminator="kind")
]


@dataclass(frozen=True, config=STRICT)
class Models:
    teacher: Annotated[ProceduralModel | FolderModel | HubModel, Field(discriminator="kind")]
    student: StudentModel
    vocabulary: Positive = 800  # of the tokenizer trained for procedural models
    trust_remote_code: bool = False
    template_mismatch: Literal["error", "teacher"] = "error"  # teacher: use its template for both


# ------------------------------------------------------------------ training
@dataclass(frozen=True, config=STRICT)
class Optimisation:
    steps: Positive  # optimiser steps
    batch_size: Positive  # prompts per optimiser step
    learning_rate: float
    micro_batch_size: Positive | None = None  # prompts per forward; None: the whole batch
    warmup: Fraction = 0.1  # share of the steps
    decay: Literal["linear", "cosine", "none"] = "linear"  # after warm-up, to 0
    weight_decay: float = 0.0
    clip: float = 1.0  # gradient norm
    dropout: Fraction = 0.0  # of the student's attention, while it trains
    validate_every: Positive | None = None  # optimiser steps; None: at the end only
    validation_examples: Positive | None = None  # first rows of the split; None: all
    patience: Positive | None = None  # validations without improvement before stopping; None: never
    checkpoint_every: Positive = 50  # optimiser steps, at least, between resumable states
    gradient_checkpointing: bool = False

    @property
    def prompts(self) -> int:
        return self.steps * self.batch_size

    @property
    def validations(self) -> int:
        return -(-self.steps // self.validate_every) if self.validate_every else 1


@dataclass(frozen=True, config=STRICT)
class Sampling:
    temperature: Annotated[float, Field(ge=0.0)] = 1.0  # 0: greedy
    top_p: Probability = 1.0


@dataclass(frozen=True, config=STRICT)
class Sft:
    teacher: Optimisation | None  # None: the teacher is already tuned on the tasks
    student: Optimisation


@dataclass(frozen=True, config=STRICT)
class Distill:
    optimisation: Optimisation
    student_sampling: Sampling = Field(default_factory=Sampling)
    teacher_sampling: Sampling = Field(default_factory=Sampling)
    # γ: tokens the student proposes per teacher pass; auto: by what was accepted so far
    block_size: Positive | Literal["auto"] = "auto"
    rollout_steps: Positive = (
        1  # optimiser steps whose responses are sampled together; 1: on-policy
    )
    # the teacher's states at known responses, on disk; auto: where they are asked for again
    teacher_cache: Literal["auto", "always", "never"] = "auto"


# ------------------------------------------------------------------- methods
@dataclass(frozen=True, config=STRICT)
class Divergence:
    name: Literal["forward_kl", "reverse_kl", "jsd", "skew_kl", "skew_rkl", "total_variation"] = (
        "forward_kl"
    )
    beta: Fraction = 0.5  # jsd: weight of the teacher; skew_*: mixture share α

    def __post_init__(self) -> None:
        if self.name.startswith("skew") and self.beta == 1.0:
            raise ValueError("beta 1 compares a model with itself; choose less")


@dataclass(frozen=True, config=STRICT)
class Acceptance:
    rule: Literal["top_k", "top_p", "min_prob", "ratio"] = "top_k"
    value: Annotated[float, Field(gt=0.0)] = 25  # K, nucleus mass, probability, λ
    final_value: float | None = None  # linear over the run's steps; None: constant
    replacement: Literal["sample", "argmax"] = "sample"


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
    decoding: Literal["greedy", "sample"] = (
        "greedy"  # seq_kd: how the teacher's responses were made
    )
    divergence: Divergence = Field(default_factory=Divergence)
    acceptance: Acceptance = Field(default_factory=Acceptance)
    learning_rate: float | None = None  # None: distill.optimisation's


# ------------------------------------------------------------------ analyses
@dataclass(frozen=True, config=STRICT)
class Sweep:
    """One method trained again for each value of one setting, scored on the validation split."""

    method: Name  # a row of `methods`
    # Its path in that row, or student_examples. Values of `acceptance` and `divergence` are whole
    # mappings ({rule: min_prob, value: 0.3}): a rule makes sense with a value of its own only.
    setting: str
    values: Annotated[list[Any], Field(min_length=1)]
    tasks: Annotated[list[Name], Field(min_length=1)]
    seeds: Annotated[list[int], Field(min_length=1)]
    # None: as many as in `distill`, whose runs are then taken over where a value is a method's own
    validation_examples: Positive | None = None


@dataclass(frozen=True, config=STRICT)
class Knob:
    setting: str  # its path in the method's row
    values: Annotated[list[Any], Field(min_length=1)]


@dataclass(frozen=True, config=STRICT)
class Fairness:
    """Every method tuned by the same number of tries, then compared at three equal budgets."""

    seeds: Annotated[
        list[int], Field(min_length=1)
    ]  # of the comparison; the first one's tries tune
    learning_rates: Annotated[list[float], Field(min_length=1)]
    knobs: dict[Name, Knob]  # rows of `methods`: what is tuned besides; as many values for each

    def __post_init__(self) -> None:
        counts = {name: len(knob.values) for name, knob in self.knobs.items()}
        if len(set(counts.values())) > 1:
            raise ValueError(f"fairness.knobs: not as many values for each method: {counts}")


@dataclass(frozen=True, config=STRICT)
class Scaling:
    """Other students for the same teacher, scored on the validation split."""

    methods: Annotated[list[Name], Field(min_length=1)]
    tasks: Annotated[list[Name], Field(min_length=1)]
    seeds: Annotated[list[int], Field(min_length=1)]
    students: dict[Name, StudentModel]


@dataclass(frozen=True, config=STRICT)
class Probe:
    """How far students and teacher agree, and what students are worth as drafts."""

    methods: list[Name]  # rows of `methods`; the untrained students are always probed
    examples: Positive = 64  # first rows of the validation split
    drafted: Positive = 4  # of them decoded one by one, timed
    k: Positive = 25  # of the interleaved prefixes


# ------------------------------------------------------------------ evaluate
@dataclass(frozen=True, config=STRICT)
class Evaluate:
    batch_size: Positive = 128
    comet: str | None = None  # folder or Hub id of a COMET checkpoint; None: not scored
    comet_encoder: str | None = (
        None  # folder of its encoder's config and tokenizer; None: beside it
    )


@dataclass(frozen=True, config=STRICT)
class Report:
    resamples: Positive = 2000
    samples_per_task: Positive = 10
    reference_method: Name = "skd"  # compared with each of the others
    seed: int = 0


@dataclass(frozen=True, config=STRICT)
class Runtime:
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    workers: Positive | None = (
        None  # processes side by side; None: one per core, one more where runs train
    )
    progress: bool = True
    scratch: str = ".scratch"  # resumable states, finished seeds, COMET scores; safe to delete
