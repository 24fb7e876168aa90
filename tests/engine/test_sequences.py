"""The causal shift and the masks."""

from __future__ import annotations

import torch

from skd.engine.sequences import TokenExample, collate
from tests.tiny import prompts


def batch_of(count: int = 5, seed: int = 0):
    pairs = zip(prompts(count, seed), prompts(count, seed + 1), strict=True)
    return collate([TokenExample(p, (*r, 1)) for p, r in pairs], pad_id=0)


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
    batch = collate(
        [TokenExample((3, 4), (5, end)), TokenExample((3,), (5, 6, 7, end))], pad_id=end
    )
    assert batch.targets.tolist() == [5, end, 5, 6, 7, end]


def test_splitting_keeps_rows_and_cuts_only_padding() -> None:
    batch = batch_of(7)
    parts = batch.split(3)
    assert [len(part.tokens) for part in parts] == [3, 3, 1]
    assert torch.cat([part.targets for part in parts]).equal(batch.targets)
    assert sum(part.response_tokens for part in parts) == batch.response_tokens
