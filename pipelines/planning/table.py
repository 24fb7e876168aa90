"""A plan as text: a table of stages, a table of memory, and what to change where it does not fit.

Knows plans and advice; computes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from pipelines.orchestration.countdown import about
from pipelines.planning.advice import Advice
from pipelines.planning.configurations import Unknown
from pipelines.planning.plan import TIGHT, Plan, StagePlan
from pipelines.planning.sizes import Sizes
from skd.settings import plain

_PARTS = (
    "process",
    "products' code",
    "weights",
    "optimiser",
    "gradients",
    "head's gradient",
    "activations",
    "kept states",
    "caches",
    "logits",
    "copy of the student",
)


def models_text(models: dict[str, Sizes | Unknown]) -> Iterator[str]:
    """What each model is, or why that is not known."""
    for role, size in models.items():
        if isinstance(size, Unknown):
            yield f"{role}: {size.name}: not at hand ({size.reason})"
            continue
        count = (
            f"{size.parameters / 1e6:,.{0 if size.parameters >= 1e7 else 2}f} million parameters"
        )
        read = "" if size.encoder is None else f"{size.encoder.layers} + "
        shape = f"{read}{size.layers} layers of {size.hidden}, {size.vocabulary:,} output rows"
        yield f"{role}: {size.name}: {count}, {shape} (from {size.origin})"


def plan_text(plan: Plan) -> Iterator[str]:
    """The two tables and the disk."""
    device = plan.device
    yield f"device: {device.kind}, {device.name}, {size_text(device.memory)}"
    yield ""
    yield from _aligned([_HEADER, *(_row(stage, plan) for stage in plan.stages)])
    yield ""
    yield "memory of the largest run of each stage, at its worst moment:"
    yield ""
    parts = [part for part in _PARTS if any(stage.peak.parts.get(part) for stage in plan.stages)]
    rows = [
        [
            stage.stage,
            stage.peak.phase,
            *(size_text(stage.peak.parts.get(part, 0)) for part in parts),
            size_text(stage.peak.bytes),
        ]
        for stage in plan.stages
    ]
    yield from _aligned([["stage", "moment", *parts, "in all"], *rows])
    yield ""
    written = ", ".join(f"{name} {size_text(b)}" for name, b in plan.disk.items() if b)
    free = size_text(plan.device.disk)
    needed = sum(plan.disk.values())
    short = "" if needed <= plan.device.disk else ", which is too little"
    yield f"disk: {size_text(needed)} of {free} free{short}: {written}"
    known = [stage.seconds for stage in plan.stages]
    if None not in known:
        yield f"time: about {about(sum(filter(None, known)))}, to within a factor of 3"


_HEADER = ["stage", "runs", "prompts", "tokens", "a run", "at once", "memory", "time", "fits"]


def _row(stage: StagePlan, plan: Plan) -> list[str]:
    return [
        stage.stage,
        f"{stage.runs}",
        f"{stage.prompts:,}",
        f"{stage.tokens:,}",
        size_text(stage.peak.bytes),
        f"{stage.side_by_side}",
        size_text(stage.memory),
        "?" if stage.seconds is None else about(stage.seconds),
        verdict(stage.memory / plan.device.memory),
    ]


def verdict(share: float) -> str:
    """yes, hardly, no: by the share of the device's memory."""
    if share > 1.0:
        return "no"
    return "hardly" if share > TIGHT else "yes"


def advice_text(advice: Sequence[Advice], enough: bool) -> Iterator[str]:
    """What to set, in the order of what it costs."""
    if advice:
        yield "it fits with:" if enough else "these settings lower it, and are not enough:"
        yield from (
            f"  {one.path}: {json.dumps(plain(one.value))}    # {one.cost}" for one in advice
        )
    if not enough:
        yield "what else helps: a smaller teacher or student, or a device with more memory"


def size_text(count: int) -> str:
    """`0`, `870 MiB`, `12.3 GiB`"""
    if count < 2**29:
        return f"{count / 2**20:.0f} MiB" if count else "0"
    return f"{count / 2**30:.1f} GiB"


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A Markdown table whose columns are as wide as their cells; texts left, numbers right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for number, row in enumerate(rows):
        cells = [
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield f"| {' | '.join(cells)} |"
        if number == 0:
            yield f"|{'|'.join('-' * (width + 2) for width in widths)}|"
