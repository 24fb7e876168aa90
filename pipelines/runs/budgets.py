"""Budgets that are held equal: how much longer a method trains to take as much as the dearest one.

Knows what a finished run took. Refuses to know methods, tasks and how a run is made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from skd.results.runs import TrainedRun
from skd.training.settings import Distill

LONGEST = 10  # times the steps of `distill`: a bound for methods that take next to nothing
STEPS = "steps"


@dataclass(frozen=True)
class Spent:
    """What a run took of a budget."""

    # All of it
    whole: float
    # The part that was taken before the first step
    once: float

    def fits(self, budget: float) -> float:
        """How many times its steps fit into a budget; 1 where more steps take no more of it."""
        by_steps = self.whole - self.once
        return (budget - self.once) / by_steps if by_steps > 0 else 1.0


# Budget that is held equal -> what a run took of it
BUDGETS: dict[str, Callable[[TrainedRun], Spent]] = {
    "tokens": lambda run: Spent(run.generated_tokens, run.preparation.teacher_sampled_tokens),
    "seconds": lambda run: Spent(run.cost.training_seconds, run.preparation.seconds),
}


def longer(distill: Distill, factor: float) -> Distill:
    """The same run with more steps, validated as often in all."""
    old = distill.optimisation
    every = old.validate_every and round(old.validate_every * factor)
    new = replace(old, steps=round(old.steps * factor), validate_every=every)
    return replace(distill, optimisation=new)


def factors(taken: Mapping[str, TrainedRun], view: str) -> dict[str, float]:
    """Method -> how many times its steps fit into the view's budget.

    What a method took once is not taken again by more steps: the teacher's own responses are made
    for a run's prompts, however often it trains on them.
    """
    if view == STEPS:
        return dict.fromkeys(taken, 1.0)
    spent = {method: BUDGETS[view](run) for method, run in taken.items()}
    budget = max(own.whole for own in spent.values())
    return {method: min(LONGEST, own.fits(budget)) for method, own in spent.items()}
