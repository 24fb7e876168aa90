"""A row of `sweeps`: one setting of one method, tried at several values."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from skd.settings import STRICT, Name, Positive
from skd.training.settings import MethodSettings, changed

# The one setting that is swept and does not stand in a row of `methods`
STUDENT_EXAMPLES = "student_examples"


@dataclass(frozen=True, config=STRICT)
class Sweep:
    """One method trained again for each value of one setting, scored on the validation split."""

    # A row of `methods`
    method: Name
    # Its path in that row, or student_examples. Values of `acceptance` and `divergence` are whole
    # Mappings ({rule: min_prob, value: 0.3}): a rule makes sense with a value of its own only.
    setting: str
    values: Annotated[list[Any], Field(min_length=1)]
    tasks: Annotated[list[Name], Field(min_length=1)]
    seeds: Annotated[list[int], Field(min_length=1)]
    # None: as many as in `distill`, whose runs are then taken over where a value is a method's own
    validation_examples: Positive | None = None

    def varied(self, row: MethodSettings, value: Any) -> MethodSettings:
        """The method's row with the setting at `value`. Raises `ValueError` where that is wrong."""
        return row if self.setting == STUDENT_EXAMPLES else changed(row, {self.setting: value})
