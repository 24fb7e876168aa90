"""What an experiment consists of: names of rows in the other sections."""

from __future__ import annotations

from pydantic.dataclasses import dataclass

from skd.settings import STRICT, Names, SomeNames, SomeSeeds


@dataclass(frozen=True, config=STRICT)
class Experiment:
    # Rows of `data`, in report order
    tasks: SomeNames
    # Rows of `methods`, in report order
    methods: SomeNames
    # Each draws the student's training subset, its order and its sampling
    seeds: SomeSeeds
    # Rows of `sweeps`, in report order
    sweeps: Names
    # Rows of `data` that are only tested, in report order
    test_sets: Names
    # Tasks on which `fairness` tunes and compares methods
    fairness: Names
    # Rows of `scaling.students`, in report order
    students: Names
