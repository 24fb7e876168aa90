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


def test_equal_logits_have_ranks_of_their_own_so_that_k_tokens_are_the_top_k() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0, 3.0]]).expand(4, -1)
    assert rank(logits, torch.arange(4)).tolist() == [3, 0, 2, 1]
    coarse = torch.randn(400, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert len(coarse.unique()) < 400
    ranks = rank(coarse.expand(400, -1), torch.arange(400))
    assert sorted(ranks.tolist()) == list(range(400))


@pytest.mark.parametrize("size", [40, 700])
def test_a_nucleus_is_its_rows_own_where_probabilities_tie(size) -> None:
    """Coarse and flat rows, within the prefilter and beyond it, in any company."""
    source = torch.Generator().manual_seed(size)
    logits = torch.randn(12, size, generator=source, dtype=torch.float64).mul(2).round().div(2)
    logits[::3] = 0.0  # all alike: far beyond the prefilter
    logits[1::3] *= 3.0
    rows = logits.softmax(-1)
    for mass in (0.1, 0.5, 0.9):
        together = nucleus_mask(rows, mass)
        assert torch.equal(together, torch.cat([nucleus_mask(row[None], mass) for row in rows]))
        masses = torch.full((len(rows), 1), mass, dtype=torch.float64)
        assert torch.equal(together, nucleus_mask(rows, masses))
        for inside, row in zip(together, logits, strict=True):
            assert torch.equal(inside, slow(row, Sampling(1.0, mass)) > 0)
