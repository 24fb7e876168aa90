"""The causal shift and the masks."""

from __future__ import annotations

import pytest
import torch

from skd.config import Divergence
from skd.methods import METHODS, loss_sum, response_logits
from skd.sequences import Example, collate
from tests.tiny import FAMILIES, SIZE, VOCABULARY, build, prompts


def batch_of(count: int = 5, seed: int = 0):
    pairs = zip(prompts(count, seed), prompts(count, seed + 1), strict=True)
    return collate([Example(p, (*r, 1)) for p, r in pairs], pad_id=0)


def test_the_first_response_token_is_trained_and_no_row_loses_any() -> None:
    batch = batch_of()
    wanted = [
        token
        for row, start, stop in zip(
            batch.tokens.tolist(),
            batch.prompt_lengths.tolist(),
            batch.lengths.tolist(),
            strict=True,
        )
        for token in row[start:stop]
    ]
    assert batch.targets.tolist() == wanted
    assert int(batch.predictors.sum()) == len(wanted) == batch.response_tokens
    rows, slots = batch.predictors.nonzero(as_tuple=True)
    assert batch.tokens[rows, slots + 1].tolist() == wanted
    assert batch.predictors[range(5), batch.prompt_lengths - 1].all()


def test_an_end_that_is_also_the_padding_stays_in_the_loss() -> None:
    end = 0  # pad == eos
    batch = collate([Example((3, 4), (5, end)), Example((3,), (5, 6, 7, end))], pad_id=end)
    assert batch.targets.tolist() == [5, end, 5, 6, 7, end]


@pytest.mark.parametrize("family", FAMILIES)
def test_response_logits_equal_a_plain_forward_row_by_row(family) -> None:
    """Soft-capping, sliding windows and padded embeddings included."""
    model = build(family, seed=3, vocab_size=SIZE + 5)
    batch = batch_of()
    got = response_logits(model, batch, VOCABULARY)
    wanted = []
    for row, start, stop in zip(batch.tokens, batch.prompt_lengths, batch.lengths, strict=True):
        logits = model(input_ids=row[None, :stop], use_cache=False).logits[0]
        wanted.append(logits[start - 1 : stop - 1, :SIZE])
    assert torch.allclose(got, torch.cat(wanted), atol=1e-5)


def test_padding_of_a_batch_does_not_change_its_loss() -> None:
    model, examples = build(), [Example((3, 4, 5), (6, 1)), Example((7,), (8, 9, 10, 11, 1))]

    def total(rows: list[Example]) -> float:
        batch = collate(rows, pad_id=0)
        logits = response_logits(model, batch, VOCABULARY)
        method = METHODS["sft"]
        return loss_sum(method, Divergence(), logits, None, batch.targets, None)[0].item()

    assert total(examples) == pytest.approx(sum(total([e]) for e in examples), rel=1e-12)


def test_splitting_keeps_rows_and_cuts_only_padding() -> None:
    batch = batch_of(7)
    parts = batch.split(3)
    assert [len(part.tokens) for part in parts] == [3, 3, 1]
    assert torch.cat([part.targets for part in parts]).equal(batch.targets)
    assert sum(part.response_tokens for part in parts) == batch.response_tokens
