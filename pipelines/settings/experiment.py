"""What an experiment consists of: names of rows in the other sections."""

from __future__ import annotations

from pydantic.dataclasses import dataclass

from skd.settings import STRICT, Name


@dataclass(frozen=True, config=STRICT)
class Experiment:
    # Rows of `data`, in report order
    tasks: list[Name]
    # Rows of `methods`, in report order
    methods: list[Name]
    # Each draws the student's training subset, its order and its sampling
    seeds: list[int]
    # Rows of `sweeps`, in report order
    sweeps: list[Name]
    # Rows of `data` that are only tested, in report order
    test_sets: list[Name]
    # Tasks on which `fairness` tunes and compares methods
    fairness: list[Name]
    # Rows of `scaling.students`, in report order
    students: list[Name]
