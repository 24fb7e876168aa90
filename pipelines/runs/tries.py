"""Tuning methods alike: every one has the same number of tries, and validation chooses.

Refuses to know how a try is run and what the chosen ones are for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from pipelines.runs.budgets import BUDGETS, STEPS, factors
from pipelines.settings.fairness import Fairness
from skd.results.runs import TrainedRun
from skd.training.settings import MethodSettings, changed


@dataclass(frozen=True)
class Candidate:
    """Settings of a method on a task, and what was chosen to make them."""

    task: str
    method: str
    learning_rate: float
    value: Any
    settings: MethodSettings


@dataclass(frozen=True)
class Tuned:
    """All tries, what came of each, and (task, method) -> the place of the chosen one."""

    tries: list[Candidate]
    runs: list[TrainedRun]
    chosen: dict[tuple[str, str], int]

    def factors(self, task: str) -> dict[str, dict[str, float]]:
        """View -> method -> how many times the steps it trains."""
        taken = {method: self.runs[at] for (of, method), at in self.chosen.items() if of == task}
        return {view: factors(taken, view) for view in (STEPS, *BUDGETS)}


def candidates(
    settings: Fairness, tasks: Sequence[str], methods: Mapping[str, MethodSettings]
) -> list[Candidate]:
    """As many for each method: learning rates × values of one setting of its own."""
    tries = []
    for task, (method, knob) in product(tasks, settings.knobs.items()):
        for rate, value in product(settings.learning_rates, knob.values):
            changes = {knob.setting: value, "learning_rate": rate}
            row = changed(methods[method], changes, f"methods.{method}")
            tries.append(Candidate(task, method, rate, value, row))
    return tries


def best(tries: list[Candidate], runs: list[TrainedRun]) -> dict[tuple[str, str], int]:
    """(task, method) -> the place of its best try on validation; of equals the earlier."""
    chosen: dict[tuple[str, str], int] = {}
    for place, candidate in enumerate(tries):
        key = (candidate.task, candidate.method)
        metric = runs[place].validation.metric
        if key not in chosen or metric > runs[chosen[key]].validation.metric:
            chosen[key] = place
    return chosen
