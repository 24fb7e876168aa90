"""Adapters: gradients are the whole weight's, merged they are themselves, `peft` reads them."""

from __future__ import annotations

import warnings

import pytest
import torch

from skd.errors import UserError
from skd.models.adapters import add_adapter_, has_adapter, merge_, save_adapter
from skd.models.quantised import quantise_
from skd.training import chunks
from skd.training.chunks import Predictions
from skd.training.losses import Terms, response_loss
from skd.training.methods import METHODS
from skd.training.settings import Adapter, Divergence
from tests.tiny import SIZE, build

IDS = torch.arange(3, 15)[None]
SEQ2SEQ = {"t5", "bart"}


def adapted(family="qwen2", targets=None, dtype=torch.float64, weights=None, **changes):
    """A model whose adapter is not zero."""
    model = build(family, dtype=dtype, **changes)
    if weights is not None:
        quantise_(model, weights, "cpu")
    add_adapter_(model, Adapter(4, 8, targets), 20)
    source = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            drawn = torch.randn(parameter.shape, generator=source, dtype=torch.float64)
            parameter.data = (0.3 * drawn).to(dtype)  # fp64 throughout, codes' adapters too
    return model


def logits(model) -> torch.Tensor:
    more = {"decoder_input_ids": IDS} if model.config.is_encoder_decoder else {}
    return model(input_ids=IDS, use_cache=False, **more).logits


def distilled(model, teacher) -> torch.Tensor:
    """The chunked loss of one row, in chunks of three tokens."""
    with torch.no_grad():
        taught = teacher.model(input_ids=IDS).last_hidden_state[0]
    states = model.model(input_ids=IDS).last_hidden_state[0]
    terms = Terms(METHODS["skd_mixed_loss"].loss, Divergence("jsd", 0.3), IDS[0])
    total, _ = response_loss(terms, Predictions(model, states), Predictions(teacher, taught), SIZE)
    return total


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch) -> None:
    monkeypatch.setitem(chunks.CHUNK_LOGITS, "cpu", 3 * SIZE)


@pytest.mark.parametrize("weights", [None, "int8", "nf4"])
@pytest.mark.parametrize(
    "targets", [None, ["q_proj", "v_proj"], ["lm_head"], ["o_proj", "lm_head"]]
)
def test_an_adapters_gradients_are_the_whole_weights(targets, weights) -> None:
    """∂A = s·Bᵀ∂W and ∂B = s·∂W·Aᵀ, with ∂W of the merged model by the same loss (LoRA, eq. 3)."""
    teacher = build("qwen2", seed=3)
    model = adapted(targets=targets, weights=weights, tie_word_embeddings=False)
    total = distilled(model, teacher)
    total.backward()
    found = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert all(parameter.grad.any() for parameter in found.values())
    merge_(model)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    whole = distilled(model, teacher)
    whole.backward()
    assert total.item() == pytest.approx(whole.item(), rel=1e-9)
    scale = 8 / 4
    for name, first in found.items():
        if ".lora_A." in name:
            path, _, rest = name.partition(".lora_A.")
            second = found[f"{path}.lora_B.{rest}"]
            by_weight = model.get_parameter(f"{path}.weight").grad
            for own, wanted in (
                (first.grad, scale * second.T @ by_weight),
                (second.grad, scale * by_weight @ first.T),
            ):
                assert torch.allclose(own, wanted, rtol=1e-7, atol=1e-9), name


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "mixtral", "t5", "bart"])
def test_it_begins_as_the_model_and_merges_to_itself(family) -> None:
    plain = build(family)
    fresh = build(family)
    add_adapter_(fresh, Adapter(), 1)
    assert torch.equal(logits(fresh), logits(plain))
    model = adapted(family)
    wanted = logits(model)
    assert not torch.allclose(wanted, logits(plain))
    merge_(model)
    assert not has_adapter(model)
    assert torch.allclose(logits(model), wanted, rtol=1e-9, atol=1e-9)
    assert {name for name, _ in model.named_parameters()} == dict(plain.named_parameters()).keys()


@pytest.mark.parametrize("family", ["qwen2", "gpt2", "t5"])
def test_peft_reads_what_is_kept(family, tmp_path) -> None:
    from peft import PeftModel

    model = adapted(family)
    save_adapter(model, tmp_path)
    with warnings.catch_warnings():  # of transposed layers, and of a base model without a name
        warnings.simplefilter("ignore")
        again = PeftModel.from_pretrained(build(family), tmp_path)
    with torch.no_grad():
        assert torch.allclose(logits(again.base_model.model), logits(model), rtol=1e-6, atol=1e-6)
    assert not [p for p in tmp_path.iterdir() if p.suffix not in (".json", ".safetensors")]


def test_it_is_the_keys_function_alone_and_in_full_precision() -> None:
    def drawn(*key: object) -> list[torch.Tensor]:
        torch.rand(3)
        model = build(dtype=torch.bfloat16)
        add_adapter_(model, Adapter(4), *key)
        return [p for p in model.parameters() if p.requires_grad]

    first, same, other = drawn(20), drawn(20), drawn(21)
    assert all(p.dtype == torch.float32 for p in first)
    assert all(torch.equal(a, b) for a, b in zip(first, same, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_all_linear_layers_but_the_output_embedding_are_the_default() -> None:
    model = build("qwen2", tie_word_embeddings=False)
    add_adapter_(model, Adapter(), 1)
    places = {name.split(".")[-4] for name, p in model.named_parameters() if p.requires_grad}
    assert places == {
        *("q_proj", "k_proj", "v_proj", "o_proj"),
        *("gate_proj", "up_proj", "down_proj"),
    }


def test_a_layer_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(UserError, match=r"'query', which no linear layer.*k_proj, lm_head, o_proj"):
        add_adapter_(build(), Adapter(targets=["q_proj", "query"]), 1)


def test_the_head_of_a_tied_model_is_refused() -> None:
    with pytest.raises(UserError, match=r"'lm_head', which is the input embedding"):
        add_adapter_(build(tie_word_embeddings=True), Adapter(targets=["lm_head"]), 1)
