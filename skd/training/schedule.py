"""Which examples an optimiser step trains on and how fast: functions of (seed, step) alone.

So a resumed run repeats an uninterrupted one, and every method of a seed sees the same
examples in the same order. Knows numbers only.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch

from skd.engine.seeding import generator
from skd.training.settings import Optimisation


def learning_rate(optimisation: Optimisation, override: float | None, step: int) -> float:
    """Linear warm-up, then decay to 0 behind the last step; a function of the step alone."""
    peak = optimisation.learning_rate if override is None else override
    warm = round(optimisation.warmup * optimisation.steps)
    if step < warm:
        return peak * (step + 1) / warm
    left = (optimisation.steps - step) / max(1, optimisation.steps - warm)
    shapes = {"linear": left, "cosine": 0.5 * (1 - math.cos(math.pi * left)), "none": 1.0}
    return peak * shapes[optimisation.decay]


def batch_indices(count: int, batch_size: int, step: int, seed: int) -> list[int]:
    """Of `count` examples those of optimiser step `step`: seeded permutations, laid end to end.

    Batches of examples of like length, drawn together, are done a quarter sooner; they made the
    default's teachers worse at equal steps (ADR 0012).
    """
    places = range(step * batch_size, (step + 1) * batch_size)
    return [_epoch(count, seed, place // count)[place % count] for place in places]


@lru_cache(maxsize=8)
def _epoch(count: int, seed: int, epoch: int) -> list[int]:
    order: list[int] = torch.randperm(count, generator=generator(seed, "order", epoch)).tolist()
    return order
