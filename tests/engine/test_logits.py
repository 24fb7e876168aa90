"""Distributions, nuclei, draws and ranks."""

from __future__ import annotations

import pytest
import torch

from skd.engine.logits import distribution, draw, nucleus_mask, rank
from skd.engine.settings import Sampling
from tests.reference import probabilities as slow


@pytest.mark.parametrize("temperature", [0.0, 0.3, 1.0, 2.0])
@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("size", [5, 300, 700])
def test_distribution_equals_the_sorted_definition(temperature, top_p, size) -> None:
    """Sizes on both sides of the prefilter, flat and peaked rows."""
    source = torch.Generator().manual_seed(size)
    rows = torch.randn(4, size, generator=source, dtype=torch.float64)
    rows = rows * torch.tensor([0.01, 1.0, 5.0, 20.0])[:, None]
    fast = distribution(rows, temperature, top_p)
    assert torch.allclose(fast.sum(-1), torch.ones(4, dtype=torch.float64))
    for got, row in zip(fast, rows, strict=True):
        wanted = slow(row, Sampling(temperature, top_p))
        assert torch.allclose(got, wanted, atol=1e-12)


def test_a_nucleus_always_holds_the_most_likely_token() -> None:
    mask = nucleus_mask(torch.tensor([[0.7, 0.2, 0.1]]), 1e-9)
    assert mask.tolist() == [[True, False, False]]


def test_draws_follow_the_weights_and_never_hit_a_zero() -> None:
    weights = torch.tensor([0.0, 0.2, 0.0, 0.5, 0.3, 0.0], dtype=torch.float64)
    points = (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000
    seen = torch.bincount(draw(weights.expand(10_000, -1), points), minlength=6).double() / 10_000
    assert torch.allclose(seen, weights, atol=2e-4)


@pytest.mark.parametrize("point", [0.0, 1.0 - 2**-53, 1.0])
def test_extreme_uniforms_draw_possible_tokens(point) -> None:
    weights = torch.tensor([[0.0, 0.3, 0.7, 0.0]])
    assert int(draw(weights, torch.tensor([point], dtype=torch.float64))) in (1, 2)


def test_unnormalised_weights_draw_as_normalised_ones() -> None:
    weights = torch.rand(50, 9, dtype=torch.float64)
    points = torch.rand(50, dtype=torch.float64)
    assert torch.equal(draw(weights, points), draw(weights / weights.sum(-1, keepdim=True), points))


def test_rank_counts_strictly_larger_logits() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0, 3.0]]).expand(4, -1)
    assert rank(logits, torch.arange(4)).tolist() == [3, 0, 2, 0]
