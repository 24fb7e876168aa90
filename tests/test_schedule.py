"""Laws of the order of examples and of the learning rate."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skd.schedule import batch_indices, learning_rate
from skd.sections import Optimisation

PLAIN = Optimisation(steps=100, batch_size=4, learning_rate=1.0, group_batches=1)


def order(lengths: list[int], steps: int, seed: int, **changes: int) -> list[list[int]]:
    optimisation = dataclasses.replace(PLAIN, **changes)
    return [batch_indices(lengths, optimisation, step, seed) for step in range(steps)]


def test_every_epoch_sees_every_row_once_in_its_own_order() -> None:
    rows = list(itertools.chain(*order([1] * 10, 10, seed=20)))
    epochs = [rows[start : start + 10] for start in range(0, 40, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert rows != list(itertools.chain(*order([1] * 10, 10, seed=21)))


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=60),
    window=st.integers(1, 9),
    seed=st.integers(0, 999),
)
def test_a_window_holds_what_was_drawn_in_batches_of_like_length(lengths, window, seed) -> None:
    plain = order(lengths, 3 * window, seed)
    grouped = order(lengths, 3 * window, seed, group_batches=window)
    for start in range(0, 3 * window, window):
        drawn, made = plain[start : start + window], grouped[start : start + window]
        assert Counter(itertools.chain(*drawn)) == Counter(itertools.chain(*made))
        spans = sorted((lengths[b[0]], lengths[b[-1]]) for b in made)
        assert all(one[1] <= other[0] for one, other in itertools.pairwise(spans))


def test_batches_of_a_window_come_in_a_seeded_order_of_length() -> None:
    lengths = list(range(64))
    means = [[sum(b) for b in order(lengths, 16, seed, group_batches=16)] for seed in range(8)]
    assert all(m != sorted(m) for m in means)
    assert len({tuple(m) for m in means}) == 8


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
