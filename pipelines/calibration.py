"""A fixed piece of work, timed: how fast a core of this machine is at what stages do.

Small matrix products and passes over their results, as a step of a small model has them.
"""

from __future__ import annotations

import time

import numpy as np

_ROUNDS, _PRODUCTS = 7, 60


def fixed_work() -> float:
    """Processor seconds, the least of a few rounds: what else runs hardly matters."""
    rng = np.random.default_rng(0)
    states = rng.random((1500, 64), dtype=np.float32)
    weights = rng.random((64, 176), dtype=np.float32)
    rounds = []
    for _ in range(_ROUNDS):
        began = time.process_time()
        for _ in range(_PRODUCTS):
            hidden = states @ weights
            np.exp(-np.abs(hidden)).sum(axis=1)
        rounds.append(time.process_time() - began)
    return round(min(rounds), 5)
