"""What the stage `base` says of teacher and student."""

from __future__ import annotations

from pydantic.dataclasses import dataclass

from skd.results.layers import LayerChoice
from skd.results.took import Took
from skd.settings import STRICT


@dataclass(frozen=True, config=STRICT)
class ModelOrigin:
    """Where a model comes from, without this machine's paths."""

    # As in the section `models`
    kind: str
    license: str | None = None
    # A folder's name
    name: str | None = None
    # On the Hub
    id: str | None = None
    # The Hub's commit
    revision: str | None = None


@dataclass(frozen=True, config=STRICT)
class ModelSize:
    architecture: str
    parameters: int
    # Of the decoder
    layers: int
    hidden_size: int
    # Rows of the output embedding, padding included
    output_rows: int


@dataclass(frozen=True, config=STRICT)
class ModelFacts:
    origin: ModelOrigin
    size: ModelSize


@dataclass(frozen=True, config=STRICT)
class PairResult:
    """metrics/base.json"""

    took: Took
    teacher: ModelFacts
    student: ModelFacts
    # Tokens that both share
    vocabulary: int
    eos: list[int]
    chat_template: bool
    # Of a student made of the teacher's layers; None: it is another model
    layers: LayerChoice | None = None
    # Whether both have an encoder
    encoder_decoder: bool = False
    # Whether each has a tokenizer of its own; what they share is then the student's
    cross_tokenizer: bool = False
