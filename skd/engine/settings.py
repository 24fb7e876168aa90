"""How a model is sampled from, and which proposals its teacher accepts.

Units and ranges stand above each field. Knows no torch.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from skd.settings import STRICT, Probability


@dataclass(frozen=True, config=STRICT)
class Sampling:
    # 0: greedy
    temperature: Annotated[float, Field(ge=0.0)] = 1.0
    top_p: Probability = 1.0


@dataclass(frozen=True, config=STRICT)
class Acceptance:
    rule: Literal["top_k", "top_p", "min_prob", "ratio"] = "top_k"
    # K, nucleus mass, probability, λ
    value: Annotated[float, Field(gt=0.0)] = 25
    # Linear over the run's steps; None: constant
    final_value: float | None = None
    replacement: Literal["sample", "argmax"] = "sample"
