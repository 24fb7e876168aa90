"""How methods are tuned alike before they are compared at equal budgets."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from skd.settings import STRICT, Name, PositiveNumber, SomeSeeds


@dataclass(frozen=True, config=STRICT)
class Knob:
    # Its path in the method's row
    setting: str
    values: Annotated[list[Any], Field(min_length=1)]


@dataclass(frozen=True, config=STRICT)
class Fairness:
    """Every method tuned by the same number of tries, then compared at three equal budgets."""

    # Of the comparison; the first one's tries tune
    seeds: SomeSeeds
    learning_rates: Annotated[list[PositiveNumber], Field(min_length=1)]
    # Rows of `methods`: what is tuned besides; as many values for each
    knobs: dict[Name, Knob]

    def __post_init__(self) -> None:
        counts = {name: len(knob.values) for name, knob in self.knobs.items()}
        if len(set(counts.values())) > 1:
            raise ValueError(f"fairness.knobs: not as many values for each method: {counts}")
