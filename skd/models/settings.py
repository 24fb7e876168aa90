"""Which teacher and student there are, and how long their prompts and responses may be.

Knows no torch.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from skd.settings import STRICT, Count, HubId, PathText, Positive, PositiveNumber, Seed, Weights


@dataclass(frozen=True, config=STRICT)
class Budget:
    # Template included
    max_prompt_tokens: Positive
    # End-of-sequence included
    max_new_tokens: Positive
    # Drawn per seed from train; None: all
    student_examples: Positive | None = None
    # A prompt over max_prompt_tokens
    too_long: Literal["error", "drop", "truncate"] = "error"


@dataclass(frozen=True, config=STRICT)
class ProceduralModel:
    kind: Literal["procedural"]
    hidden_size: Positive
    layers: Positive
    heads: Positive
    # Of pretraining on the base corpora; 0: random weights
    steps: Count
    batch_size: Positive = 32
    learning_rate: PositiveNumber = 3e-3
    seed: Seed = 0


@dataclass(frozen=True, config=STRICT)
class FolderModel:
    kind: Literal["folder"]
    # A Hugging Face folder with safetensors weights
    path: PathText
    # For the model card; None: as its README.md's front matter says
    license: str | None = None


@dataclass(frozen=True, config=STRICT)
class HubModel:
    kind: Literal["hub"]
    id: HubId
    # Resolved to a commit, which is recorded
    revision: str = "main"
    # For the model card; None: as its README.md's front matter says
    license: str | None = None


@dataclass(frozen=True, config=STRICT)
class Healing:
    # Optimiser steps on the divergence to the whole teacher, at the training rows' own responses
    steps: Positive = 50
    # Prompts per optimiser step, of all tasks by turns
    batch_size: Positive = 8
    learning_rate: PositiveNumber = 1e-4
    # The student's while it heals; in bfloat16 with master copies in fp32
    weights: Literal["float32", "bfloat16"] = "float32"


@dataclass(frozen=True, config=STRICT)
class LayersModel:
    # A student made of the teacher's layers
    kind: Literal["layers"]
    # Layer numbers of the teacher, in order; None: `count` layers, chosen by their importance
    keep: list[int] | None = None
    count: Positive | None = None
    # Training rows, of all tasks by turns, that layers are measured on
    calibration_rows: Positive = 32
    # None: the layers stay as the teacher has them
    heal: Healing | None = Field(default_factory=Healing)

    def __post_init__(self) -> None:
        if (self.keep is None) == (self.count is None):
            raise ValueError("say either which layers to keep, `keep`, or how many, `count`")


StudentModel = Annotated[
    ProceduralModel | FolderModel | HubModel | LayersModel, Field(discriminator="kind")
]


@dataclass(frozen=True, config=STRICT)
class Languages:
    # Codes as the pair's tokenizer has them: asm_Beng and eng_Latn for NLLB, as and en for M2M-100
    source: str
    target: str


@dataclass(frozen=True, config=STRICT)
class Models:
    teacher: Annotated[ProceduralModel | FolderModel | HubModel, Field(discriminator="kind")]
    student: StudentModel
    # In what the teacher is held wherever it is not trained; None: in bfloat16 on an accelerator
    # while a student learns from it, and in float32 elsewhere
    teacher_weights: Weights | None = None
    # Of the tokenizer trained for procedural models
    vocabulary: Positive = 800
    trust_remote_code: bool = False
    # Teacher: use its template for both
    template_mismatch: Literal["error", "teacher"] = "error"
    # Where teacher and student have different tokenizers; None: such a pair is refused
    cross_tokenizer: Literal["uld"] | None = None
    # Of an encoder–decoder pair whose tokenizer has codes of languages; None: as it stands there
    languages: Languages | None = None

    def __post_init__(self) -> None:
        if self.languages is not None and isinstance(self.teacher, ProceduralModel):
            raise ValueError("languages are for tokenizers that have codes of them; remove it")
        if self.cross_tokenizer is not None and self.student.kind in ("procedural", "layers"):
            raise ValueError(
                f"cross_tokenizer is for two tokenizers, and a student of kind "
                f"{self.student.kind} has its teacher's; remove it"
            )
