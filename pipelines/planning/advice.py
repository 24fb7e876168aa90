"""What would make an experiment fit: settings in the order of what they cost.

Those that leave the results alike come first, then those that cost time, then those that change
what is learned. A setting is proposed if it lowers what is missing and nothing else makes it
needless. Knows settings by their paths; refuses to know how memory is computed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.schema import Params
from skd.training.settings import Adapter

_RUNS = ("sft.teacher", "sft.student", "distill.optimisation")


@dataclass(frozen=True)
class Remedy:
    """One setting with the values that it may be lowered to, the dearest last."""

    path: str
    values: Sequence[Any]
    cost: str


@dataclass(frozen=True)
class Advice:
    """A setting at the value that is enough."""

    path: str
    value: Any
    cost: str


def remedies(params: Params, workers: int) -> Iterator[Remedy]:
    """Every setting that there is to lower, the cheapest first. New ones are rows here.

    workers: how many jobs run side by side now.
    """
    alike = "the same results"
    if workers > 1:
        yield Remedy("runtime.workers", range(workers - 1, 0, -1), f"{alike}; fewer runs at a time")
    if params.runtime.per_device > 1:
        fewer = range(params.runtime.per_device - 1, 0, -1)
        yield Remedy("runtime.per_device", fewer, f"{alike}; fewer runs on a device at a time")
    for path in _RUNS:
        if (run := get(params, path)) is not None:
            now = run.micro_batch_size or run.batch_size
            costs = f"{alike}; less of the device is used"
            yield Remedy(f"{path}.micro_batch_size", halves(now), costs)
    batch = params.evaluate.batch_size
    yield Remedy("evaluate.batch_size", halves(batch), f"{alike}; slower decoding")
    for path in _RUNS:
        run = get(params, path)
        if run is not None and not run.gradient_checkpointing:
            costs = f"{alike}; a third more of a step's time"
            yield Remedy(f"{path}.gradient_checkpointing", [True], costs)
    for path in _RUNS:
        run = get(params, path)
        if run is not None and run.optimiser == "adamw":
            yield Remedy(f"{path}.optimiser", ["adamw_8bit"], "coarser moments; a slower step")
    if params.models.teacher_weights in (None, "float32", "bfloat16"):
        tuned_in = params.sft.teacher and params.sft.teacher.weights
        coarser = [weights for weights in ("int8", "nf4") if weights != tuned_in]
        yield Remedy("models.teacher_weights", coarser, "a coarser teacher; slower passes")
    steps = params.distill.rollout_steps
    yield Remedy("distill.rollout_steps", halves(steps), "fresher responses; slower sampling")
    for path in _RUNS:
        run = get(params, path)
        if run is not None and run.adapter is None:
            yield Remedy(f"{path}.adapter", [Adapter()], "LoRA: less can be learned")
    if params.sft.teacher is not None:
        yield Remedy("sft.teacher", [None], "name a teacher that is tuned on the tasks already")
    for task in params.experiment.tasks:
        for name in ("max_new_tokens", "max_prompt_tokens"):
            path = f"budget.{task}.{name}"
            yield Remedy(
                path, halves(get(params, path), least=32), "longer rows are cut or dropped"
            )


def advise(
    params: Params, workers: int, missing: Callable[[Params], int]
) -> tuple[list[Advice], bool]:
    """The settings to change, and whether they are enough.

    missing: bytes that an experiment lacks; 0: it fits.
    """
    advice: list[Advice] = []
    for remedy in remedies(params, workers):
        now = missing(with_advice(params, advice))
        if now == 0:
            break
        tried = [Advice(remedy.path, value, remedy.cost) for value in remedy.values]
        left = [missing(with_advice(params, [*advice, one])) for one in tried]
        if tried and min(left) < now:
            advice.append(tried[left.index(min(left))])
    for one in list(advice):  # what a later one made needless
        others = [other for other in advice if other is not one]
        if missing(with_advice(params, others)) <= missing(with_advice(params, advice)):
            advice = others
    return advice, missing(with_advice(params, advice)) == 0


def halves(value: int, least: int = 1) -> list[int]:
    """Half of it, half of that, and so on, down to `least`."""
    found = []
    while value // 2 >= least:
        value //= 2
        found.append(value)
    return found


# --------------------------------------------------------------------------- settings
def get(settings: Any, path: str) -> Any:
    """What stands at a path, with dots."""
    for name in path.split("."):
        settings = settings[name] if isinstance(settings, Mapping) else getattr(settings, name)
    return settings


def with_advice(params: Params, advice: Sequence[Advice]) -> Params:
    """The same parameters with these settings; those of a section that is gone are passed over."""
    for one in advice:
        section = one.path.rpartition(".")[0]
        if get(params, section) is not None:
            params = put(params, one.path, one.value)
    return params


def put(settings: Any, path: str, value: Any) -> Any:
    """The same settings with another value at a path."""
    name, _, rest = path.partition(".")
    inner = value if not rest else put(get(settings, name), rest, value)
    if isinstance(settings, Mapping):
        return {**settings, name: inner}
    return dataclasses.replace(settings, **{name: inner})
