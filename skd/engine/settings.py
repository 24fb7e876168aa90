"""How a model is sampled from, and which proposals its teacher accepts.

Units and ranges stand above each field. Knows no torch.
"""

from __future__ import annotations

import math
from typing import Literal

import pydantic
from pydantic import Field, ValidationInfo
from pydantic.dataclasses import dataclass

from skd.settings import STRICT, Finite, NotNegative, Probability


@dataclass(frozen=True, config=STRICT)
class Sampling:
    # 0: greedy
    temperature: NotNegative = 1.0
    top_p: Probability = 1.0


@dataclass(frozen=True)
class RuleValue:
    """The number that an acceptance rule compares with."""

    meaning: str
    # Where a row of settings gives none
    default: float
    lowest: float
    highest: float


# The rules themselves are functions: `skd.engine.acceptance.ACCEPT`.
RULES: dict[str, RuleValue] = {
    "top_k": RuleValue("K of the teacher's K most likely tokens", 25, 1, math.inf),
    "top_p": RuleValue("the mass of the teacher's nucleus", 0.9, 0, 1),
    "min_prob": RuleValue("the least probability that the teacher must give", 0.3, 0, 1),
    "ratio": RuleValue("the teacher's share of the policy that is sampled", 0.5, 0, 1),
}


@dataclass(frozen=True, config=STRICT)
class Acceptance:
    rule: Literal["top_k", "top_p", "min_prob", "ratio"] = "top_k"
    # As `RULES` says for the rule; none given: its default
    value: Finite = Field(default_factory=lambda given: RULES[given["rule"]].default)
    # Where the run ends, behind its last step, in the same range; None: constant
    final_value: Finite | None = None
    replacement: Literal["sample", "argmax"] = "sample"
    # From value to final_value over the run's steps; cosine: by half a cosine of their logarithms
    schedule: Literal["linear", "cosine"] = "linear"

    @pydantic.field_validator("value", "final_value")
    @classmethod
    def _in_range(cls, value: float | None, info: ValidationInfo) -> float | None:
        rule = RULES.get(info.data.get("rule", ""))
        if value is None or rule is None or rule.lowest <= value <= rule.highest:
            return value
        highest = "" if rule.highest == math.inf else f" and at most {rule.highest:g}"
        without = f"{rule.default:g}" if info.field_name == "value" else "a constant value"
        raise ValueError(
            f"must be at least {rule.lowest:g}{highest} for the rule {info.data['rule']}: it is "
            f"{rule.meaning}; correct it, or leave it out for {without}"
        )

    def __post_init__(self) -> None:
        if self.rule == "ratio" and self.replacement == "argmax":
            raise ValueError(
                "replacement argmax does not go with the rule ratio, whose replacements come from "
                "the residual of teacher and student; choose sample"
            )
        if self.schedule == "cosine" and 0.0 in (self.value, self.final_value):
            raise ValueError(
                "schedule cosine goes between logarithms and cannot start or end at 0; "
                "choose linear, or a small value"
            )
