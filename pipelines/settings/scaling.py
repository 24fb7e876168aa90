"""Other students for the same teacher."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from skd.models.settings import StudentModel
from skd.settings import STRICT, Name


@dataclass(frozen=True, config=STRICT)
class Scaling:
    """Other students for the same teacher, scored on the validation split."""

    methods: Annotated[list[Name], Field(min_length=1)]
    tasks: Annotated[list[Name], Field(min_length=1)]
    seeds: Annotated[list[int], Field(min_length=1)]
    students: dict[Name, StudentModel]
