"""A student of some layers: the teacher's own, and the same model after it was saved and loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import (
    GPTNeoConfig,
    GPTNeoForCausalLM,
    PreTrainedModel,
)

from skd.engine.checking import check_decoder
from skd.engine.positions import text_config
from skd.errors import UserError
from skd.models.layers import keep_layers
from skd.models.loading import load_model, measure_model
from tests.tiny import FAMILIES, build

KEEP = [0, 2, 3, 5]
TOKENS = torch.arange(3, 25)[None]
# Where the layers of a family differ, so do those that are kept.
PATTERNS = {
    "smollm3": {"no_rope_layers": [1, 0, 0, 1, 0, 0]},
    "llama4_chunked": {"no_rope_layers": [1, 0, 0, 1, 1, 0], "moe_layers": [1, 2, 5]},
    "qwen2_moe": {"mlp_only_layers": [1, 2, 5]},
    "qwen3_moe": {"mlp_only_layers": [0, 1, 2, 3, 4, 5]},
}


def deep(family: str, **changes: object) -> PreTrainedModel:
    shape = {"num_hidden_layers": 6, "dtype": torch.float32, **PATTERNS.get(family, {}), **changes}
    return build(family, **shape)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cut_model_is_itself_after_reloading(family: str, tmp_path: Path) -> None:
    """What each layer is, it stays: windows, rotary positions, experts, caches."""
    student = keep_layers(deep(family), KEEP)
    student.save_pretrained(tmp_path)
    again = load_model(tmp_path)
    assert measure_model(again).layers == len(KEEP)
    with torch.no_grad():
        wanted, made = student(input_ids=TOKENS).logits, again(input_ids=TOKENS).logits
    torch.testing.assert_close(made, wanted, rtol=1e-3, atol=1e-3)  # eager, and fused
    check_decoder(again, positions=40)


@pytest.mark.parametrize("family", FAMILIES)
def test_all_layers_kept_are_the_teacher(family: str) -> None:
    teacher, student = deep(family), keep_layers(deep(family), list(range(6)))
    with torch.no_grad():
        assert torch.equal(student(input_ids=TOKENS).logits, teacher(input_ids=TOKENS).logits)


def test_kept_layers_are_the_teachers_own_in_order() -> None:
    teacher, student = deep("llama"), keep_layers(deep("llama"), KEEP)
    for place, layer in enumerate(KEEP):
        kept, own = student.model.layers[place], teacher.model.layers[layer]
        assert kept.self_attn.layer_idx == place
        assert torch.equal(kept.mlp.up_proj.weight, own.mlp.up_proj.weight)


def test_fields_of_layers_follow_them_and_other_lists_stay() -> None:
    config = text_config(keep_layers(deep("smollm3"), KEEP))
    assert config.no_rope_layers == [1, 0, 1, 0]
    assert keep_layers(deep("qwen2_moe"), KEEP).config.mlp_only_layers == [1, 3]
    several_ends = deep("llama", eos_token_id=[1, 2, 3, 4, 5, 6])  # as many as layers
    assert keep_layers(several_ends, KEEP).config.eos_token_id == [1, 2, 3, 4, 5, 6]


def test_patterns_and_counts_of_layers_follow_too() -> None:
    torch.manual_seed(0)
    shape = {"vocab_size": 31, "hidden_size": 16, "num_heads": 2, "num_layers": 6}
    neo = GPTNeoForCausalLM(GPTNeoConfig(**shape, attention_types=[[["global", "local"], 3]]))
    config = keep_layers(neo.eval(), KEEP).config
    assert config.attention_layers == ["global", "global", "local", "local"]


def test_a_model_that_would_come_back_as_another_is_refused() -> None:
    """Every second layer has experts: of the kept ones it would be others."""
    model = deep("qwen2_moe", mlp_only_layers=[], decoder_sparse_step=2)
    with pytest.raises(UserError, match="another model once it is saved and loaded"):
        keep_layers(model, KEEP)


@pytest.mark.parametrize("keep", [[], [0, 0], [2, 1], [0, 5], [-1, 0]])
def test_a_bad_layer_list_is_named(keep) -> None:
    with pytest.raises(UserError, match=r"models.student.keep"):
        keep_layers(build(num_hidden_layers=5), keep)
