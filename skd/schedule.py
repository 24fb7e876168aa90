"""Which examples an optimiser step trains on and how fast: functions of (seed, step) alone.

So a resumed run repeats an uninterrupted one, and every method of a seed sees the same
examples in the same order. Knows lengths and numbers; no ids and no models.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch

from skd.sections import Optimisation
from skd.seeding import generator


def learning_rate(optimisation: Optimisation, override: float | None, step: int) -> float:
    """Linear warm-up, then decay to 0 at the last step; a function of the step alone."""
    peak = override or optimisation.learning_rate
    warm = round(optimisation.warmup * optimisation.steps)
    if step < warm:
        return peak * (step + 1) / warm
    left = (optimisation.steps - step) / max(1, optimisation.steps - warm)
    shapes = {"linear": left, "cosine": 0.5 * (1 - math.cos(math.pi * left)), "none": 1.0}
    return peak * shapes[optimisation.decay]


def batch_indices(
    lengths: Sequence[int], optimisation: Optimisation, step: int, seed: int
) -> list[int]:
    """Examples of optimiser step `step`; lengths: tokens of each example.

    Epochs of seeded permutations are laid end to end and cut into windows of
    `group_batches` batches. Within a window batches are made of examples of like length, and
    come in a seeded order: padding, which costs what tokens cost, goes, and what a window
    trains on stays what was drawn.
    """
    size, window = optimisation.batch_size, optimisation.group_batches
    first = step - step % window
    places = range(first * size, (first + window) * size)
    count = len(lengths)
    drawn = [_epoch(count, seed, place // count)[place % count] for place in places]
    drawn.sort(key=lengths.__getitem__)
    turns = torch.randperm(window, generator=generator(seed, "batches", first))
    start = int(turns[step - first]) * size
    return drawn[start : start + size]


@lru_cache(maxsize=8)
def _epoch(count: int, seed: int, epoch: int) -> list[int]:
    order: list[int] = torch.randperm(count, generator=generator(seed, "order", epoch)).tolist()
    return order
