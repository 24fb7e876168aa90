"""Other students for the same teacher."""

from __future__ import annotations

from pydantic.dataclasses import dataclass

from skd.models.settings import StudentModel
from skd.settings import STRICT, Name, SomeNames, SomeSeeds


@dataclass(frozen=True, config=STRICT)
class Scaling:
    """Other students for the same teacher, scored on the validation split."""

    methods: SomeNames
    tasks: SomeNames
    seeds: SomeSeeds
    students: dict[Name, StudentModel]
