"""Where the responses of a rollout come from, row by row: a function of the run, never of who asks.

Knows the table of methods and the run's random numbers. Refuses to know ids and models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from skd.engine.seeding import generator
from skd.training.methods import Method, ResponseSource

Key = tuple[object, ...]


@dataclass(frozen=True)
class PlannedRow:
    """One row of a batch: a prompt, and where its response comes from."""

    prompt: int  # its place in the known responses
    source: ResponseSource
    otherwise: bool  # whether that is the method's second source
    progress: float  # the share of the run that is done when it is trained on
    number: int  # among all rows of the rollout, whoever makes them; it names its noise


def plan_rows(
    method: Method, prompts: Sequence[int], progress: Sequence[float], key: Key
) -> list[PlannedRow]:
    """Where each prompt's response comes from: one coin per prompt, of the run's own generator.

    Each prompt is planned at its own progress, so that a rollout for several steps changes the
    source at the very step that the method says. A paired method has two rows per prompt, side by
    side.
    """
    first, second = (method.response, False), (method.otherwise, True)
    asked = list(zip(prompts, progress, strict=True))
    if method.paired:
        planned = [(prompt, *source, at) for prompt, at in asked for source in (first, second)]
    else:
        coins = torch.rand(len(prompts), generator=generator(*key, "coin"), dtype=torch.float64)
        planned = [
            (prompt, *(first if at >= method.start and coin < method.coin else second), at)
            for (prompt, at), coin in zip(asked, coins.tolist(), strict=True)
        ]
    return [PlannedRow(*row, number) for number, row in enumerate(planned)]


def places_of(rows: Sequence[PlannedRow], source: ResponseSource) -> list[int]:
    return [place for place, row in enumerate(rows) if row.source is source]
