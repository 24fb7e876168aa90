"""How many training runs a stage makes, from its parameters alone: what its time goes with.

Knows which lists of params.yaml multiply which; refuses to know what a run costs, and checks
nothing, since the stage will.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

# The value of a dotted path, as dvc.lock keeps them
Values = Mapping[str, Any]
# At equal steps, equal tokens and equal seconds
_EQUAL_BUDGETS = 3


def _each(values: Values) -> int:
    return len(values["experiment.tasks"]) * len(values["experiment.seeds"])


def _evaluate(values: Values) -> int:
    """Students of each method, and those they began as."""
    return _each(values) * (1 + len(values["experiment.methods"]))


def _sweep(values: Values) -> int:
    rows = [values["sweeps"][name] for name in values["experiment.sweeps"]]
    return sum(len(row["values"]) * len(row["tasks"]) * len(row["seeds"]) for row in rows)


def _fairness(values: Values) -> int:
    settings = values["fairness"]
    rates, chosen = len(settings["learning_rates"]), _EQUAL_BUDGETS * len(settings["seeds"])
    each = [len(knob["values"]) * rates + chosen for knob in settings["knobs"].values()]
    return len(values["experiment.fairness"]) * sum(each)


def _scaling(values: Values) -> int:
    """The students of each method, and the one they began as."""
    runs = len(values["scaling.tasks"]) * len(values["scaling.seeds"])
    return runs * (1 + len(values["scaling.methods"]))


# Stage, or the matrix that it is a cell of -> its runs
RUNS: Mapping[str, Callable[[Values], int]] = {
    "sft": _each,
    "distill": _each,
    "evaluate": _evaluate,
    "sweep": _sweep,
    "fairness": _fairness,
    "scaling": _scaling,
}


def tally(parameters: Mapping[str, Values]) -> dict[str, int]:
    """Stage -> its runs, of those whose time goes with their number.

    parameters: of each stage. Raises KeyError, TypeError or AttributeError where they are not what
    they should be.
    """
    counts = {stage: RUNS.get(stage.partition("@")[0]) for stage in parameters}
    return {stage: count(parameters[stage]) for stage, count in counts.items() if count}


def flat(params: Mapping[str, Any]) -> dict[str, Any]:
    """Sections and their keys by dotted paths, as far down as dvc.yaml names them."""
    keys = {
        f"{section}.{key}": value
        for section, under in params.items()
        if isinstance(under, Mapping)
        for key, value in under.items()
    }
    return {**params, **keys}
