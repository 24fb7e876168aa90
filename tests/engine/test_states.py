"""A model in two halves: the head over final states is the model's own forward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import BloomConfig, BloomForCausalLM, MambaConfig, MambaForCausalLM

from skd.engine.checking import check_decoder
from skd.engine.sequences import TokenExample, collate
from skd.engine.states import batch_states, head
from skd.errors import UserError
from tests.tiny import FAMILIES, SIZE, build, prompts

PAIRS = zip(prompts(5), prompts(5, seed=1), strict=True)
BATCH = collate([TokenExample(p, (*r, 1)) for p, r in PAIRS], pad_id=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_response_logits_equal_a_plain_forward_row_by_row(family) -> None:
    """Soft-capping, sliding windows and padded embeddings included."""
    model = build(family, seed=3, vocab_size=SIZE + 5)
    got = head(model, batch_states(model, BATCH)[BATCH.predictors])
    wanted = []
    for row, start, stop in zip(BATCH.tokens, BATCH.prompt_lengths, BATCH.lengths, strict=True):
        logits = model(input_ids=row[None, :stop], use_cache=False).logits[0]
        wanted.append(logits[start - 1 : stop - 1])
    assert torch.allclose(got, torch.cat(wanted), atol=1e-5)


def test_the_models_forward_is_its_own_again_whatever_happens() -> None:
    model = build()
    states = batch_states(model, BATCH)[0]
    head(model, states)
    assert "forward" not in vars(model.get_decoder())
    with pytest.raises(RuntimeError):
        head(model, states[:, :3])  # the wrong width
    assert "forward" not in vars(model.get_decoder())
    hooked = model.get_decoder().forward
    model.get_decoder().forward = hooked  # as a device map's hooks do
    head(model, states)
    assert model.get_decoder().forward is hooked


def test_gradients_reach_the_head_and_the_states() -> None:
    model = build()
    states = batch_states(model, BATCH)[0]
    head(model, states).square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_check_passes_every_family(family: str) -> None:
    check_decoder(build(family))


@pytest.mark.filterwarnings("ignore:`position_ids` have no functionality in BLOOM")
@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (BloomForCausalLM, BloomConfig(SIZE, hidden_size=16, n_layer=2, n_head=2)),
        (MambaForCausalLM, MambaConfig(vocab_size=SIZE, hidden_size=16, num_hidden_layers=2)),
    ],
)
def test_a_family_that_cannot_be_sampled_by_position_is_named(kind: Any, config: Any) -> None:
    with pytest.raises(UserError, match=f"{kind.__name__} cannot be sampled by position"):
        check_decoder(kind(config).eval())
