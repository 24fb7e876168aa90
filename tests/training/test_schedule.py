"""Laws of the order of examples and of the learning rate."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from skd.training.schedule import batch_indices, learning_rate
from skd.training.settings import Optimisation


def test_every_epoch_sees_every_row_once_in_its_own_order() -> None:
    order = [i for step in range(10) for i in batch_indices(10, 4, step, seed=20)]
    epochs = [order[start : start + 10] for start in range(0, 40, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert order != [i for step in range(10) for i in batch_indices(10, 4, step, seed=21)]


def test_the_learning_rate_warms_up_and_decays_to_nothing() -> None:
    base = Optimisation(steps=100, batch_size=1, learning_rate=2.0, warmup=0.1)
    rates = [learning_rate(base, None, step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.2 * i for i in range(1, 11)])
    assert rates[10] == 2.0
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))
    assert rates[-1] == pytest.approx(2.0 / 90)
    assert learning_rate(base, 0.5, 10) == 0.5
    flat = dataclasses.replace(base, decay="none", warmup=0.0)
    assert {learning_rate(flat, None, step) for step in range(100)} == {2.0}
