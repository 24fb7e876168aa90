"""How a model comes out of its folder: its dropout and its attention, whatever its family."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import CodeGenConfig, CodeGenForCausalLM, PreTrainedModel

from skd.errors import UserError
from skd.models.dropout import drops_out
from skd.models.loading import load_model
from tests.tiny import FAMILIES, SIZE, build

TOKENS = torch.arange(3, 25)[None]
NEAR = {"rtol": 1e-3, "atol": 1e-3}


def saved(family: str, folder: Path, **changes: object) -> Path:
    build(family, dtype=torch.float32, **changes).save_pretrained(folder)
    return folder


def codegen(folder: Path) -> Path:
    torch.manual_seed(0)
    shape = {"n_embd": 16, "n_layer": 2, "n_head": 4, "rotary_dim": 4, "n_positions": 64}
    CodeGenForCausalLM(CodeGenConfig(SIZE, **shape, resid_pdrop=0.1)).save_pretrained(folder)
    return folder


def in_training(model: PreTrainedModel) -> torch.Tensor:
    torch.manual_seed(0)
    made: torch.Tensor = model.train()(input_ids=TOKENS, use_cache=False).logits
    model.eval()
    return made


@pytest.mark.parametrize("family", [*FAMILIES, "codegen"])
def test_dropout_is_what_was_asked_for_in_every_family(family: str, tmp_path: Path) -> None:
    """None at 0, whatever the model's own config says; some at 0.1, by any of its names."""
    folder = codegen(tmp_path) if family == "codegen" else saved(family, tmp_path)
    still = load_model(folder)
    with torch.no_grad():
        wanted = still(input_ids=TOKENS, use_cache=False).logits
        torch.testing.assert_close(in_training(still), wanted, **NEAR)
        leaky = load_model(folder, dropout=0.1)
        made = leaky(input_ids=TOKENS, use_cache=False).logits
        torch.testing.assert_close(made, wanted, **NEAR)
        assert not torch.allclose(in_training(leaky), wanted, **NEAR)


def test_layers_are_never_left_out(tmp_path: Path) -> None:
    folder = saved("opt_projected", tmp_path, layerdrop=0.9)
    with torch.no_grad():
        model = load_model(folder)
        torch.testing.assert_close(in_training(model), model(input_ids=TOKENS).logits, **NEAR)


def test_a_family_without_dropout_is_refused_one(tmp_path: Path, monkeypatch) -> None:
    folder = saved("llama", tmp_path)
    state = torch.get_rng_state()
    assert drops_out(load_model(folder, dropout=0.01))
    assert torch.equal(torch.get_rng_state(), state)  # a run's random numbers are its own
    monkeypatch.setattr("skd.models.loading.set_dropout", lambda *_: None)
    with pytest.raises(UserError, match="LlamaForCausalLM has no dropout while it trains"):
        load_model(folder, dropout=0.1)


def test_capped_attention_is_loaded_where_it_is_computed(tmp_path: Path) -> None:
    model = build("gemma2", dtype=torch.float32, attn_logit_softcapping=1.0)
    model.save_pretrained(tmp_path)
    again = load_model(tmp_path)
    with torch.no_grad():
        wanted = model(input_ids=TOKENS).logits
        torch.testing.assert_close(again(input_ids=TOKENS).logits, wanted, **NEAR)
