"""A row of `sweeps`: one setting of one method, tried at several values."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from skd.settings import STRICT, Name, Positive, SomeNames, SomeSeeds, describe_errors
from skd.training.settings import Distill, MethodSettings, changed

# Swept settings that do not stand in a row of `methods`: the rows that a student sees, and those
# whose path begins with the section `distill`
STUDENT_EXAMPLES, OF_RUNS = "student_examples", "distill"


@dataclass(frozen=True, config=STRICT)
class Sweep:
    """One method trained again for each value of one setting, scored on the validation split."""

    # A row of `methods`
    method: Name
    # Its path in that row, a path such as distill.rollout_steps, or student_examples. Values of
    # `acceptance` and `divergence` are whole mappings ({rule: min_prob, value: 0.3}): a rule makes
    # sense with a value of its own only.
    setting: str
    values: Annotated[list[Any], Field(min_length=1)]
    tasks: SomeNames
    seeds: SomeSeeds
    # None: as many as in `distill`, whose runs are then taken over where a value is a method's own
    validation_examples: Positive | None = None

    def varied(
        self, row: MethodSettings, distill: Distill, value: Any
    ) -> tuple[MethodSettings, Distill]:
        """The method's row and the section `distill` with the setting at `value`.

        Raises `ValueError` where that is wrong.
        """
        section, _, path = self.setting.partition(".")
        if self.setting == STUDENT_EXAMPLES:
            _check_examples(value)
            return row, distill
        if section == OF_RUNS:
            return row, changed(distill, {path: value}, OF_RUNS)
        return changed(row, {self.setting: value}, f"methods.{self.method}"), distill


def _check_examples(value: Any) -> None:
    """Raises `ValueError` for a value that is no number of rows."""
    try:
        TypeAdapter(Positive | None).validate_python(value)
    except ValidationError as error:
        raise ValueError(f"{STUDENT_EXAMPLES}: {describe_errors(error)[0]}") from None
