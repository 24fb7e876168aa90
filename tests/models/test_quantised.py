"""Weights in 8 and 4 bits: how far they are off, and that products and gradients are of them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from skd.errors import UserError
from skd.models.quantised import (
    FORMATS,
    QuantisedLinear,
    by_bitsandbytes,
    dequantise_,
    quantise_,
)
from tests.tiny import build

IDS = torch.arange(3, 15)[None]
# Of the norm of normally distributed weights, by format
ERROR = {"int8": 0.02, "nf4": 0.12}


def gradients(model) -> dict[str, torch.Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("shape", [(16, 24), (7, 33), (1, 1), (128, 64)])
def test_a_weight_comes_back_within_its_formats_error(name, shape) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(shape[1], shape[0])
    nn.init.normal_(layer.weight)
    with torch.no_grad():
        off = QuantisedLinear(layer, name).full_weight() - layer.weight
    assert off.norm() <= ERROR[name] * layer.weight.norm()


@pytest.mark.parametrize("name", FORMATS)
def test_what_a_format_can_write_comes_back_as_it_was(name) -> None:
    """Zeros, and weights that were in the format before."""
    layer = nn.Linear(64, 8)
    for _ in range(2):
        once = QuantisedLinear(layer, name).full_weight()
        layer.weight = nn.Parameter(once)
    assert torch.allclose(QuantisedLinear(layer, name).full_weight(), once, rtol=1e-6)
    nn.init.zeros_(layer.weight)
    assert not QuantisedLinear(layer, name).full_weight().any()


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2", "mixtral", "opt_projected", "t5"])
def test_a_model_is_the_one_of_its_dequantised_weights(name, family) -> None:
    """In value and in the gradients of what is left to train, norms and embeddings."""
    model = build(family)
    asked = {"input_ids": IDS} | ({"decoder_input_ids": IDS} if family == "t5" else {})
    head = model.get_output_embeddings()
    quantise_(model, name, "cpu")
    assert model.get_output_embeddings() is head
    value = model(**asked).logits
    value.square().sum().backward()
    got = gradients(model)
    model.zero_grad()
    dequantise_(model)
    assert not any(isinstance(part, QuantisedLinear) for part in model.modules())
    wanted = model(**asked).logits
    wanted.square().sum().backward()
    assert torch.allclose(value, wanted, rtol=1e-12)
    for key, gradient in got.items():
        assert torch.allclose(gradient, gradients(model)[key], rtol=1e-9, atol=1e-9), key


@pytest.mark.parametrize(("name", "bytes_each"), [("int8", 1.1), ("nf4", 0.57)])
def test_it_takes_the_bytes_that_it_promises(name, bytes_each) -> None:
    layer = nn.Linear(256, 256, bias=False)
    kept = QuantisedLinear(layer, name)
    held = sum(x.nbytes for x in (*kept.parameters(), *kept.buffers()))
    assert held <= bytes_each * layer.weight.numel()


def test_the_backward_pass_keeps_no_full_weight() -> None:
    layer = QuantisedLinear(nn.Linear(64, 32), "nf4")
    saved: list[torch.Size] = []

    def see(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tensor.shape)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(see, lambda x: x):
        layer(torch.ones(2, 64, requires_grad=True))
    assert torch.Size((32, 64)) not in saved


def test_the_layout_is_that_of_bitsandbytes() -> None:
    pytest.importorskip("bitsandbytes")
    layer = QuantisedLinear(nn.Linear(33, 7), "nf4")
    codes, scales = layer.weight.detach(), layer.get_buffer("scales")
    theirs = by_bitsandbytes(codes, scales, torch.Size((7, 33)), torch.float32)
    assert torch.equal(theirs, layer.full_weight())


def test_a_model_without_linear_layers_is_refused() -> None:
    with pytest.raises(UserError, match="GPT2LMHeadModel has no linear layers to hold in nf4"):
        quantise_(build("gpt2"), "nf4", "cpu")


@pytest.mark.parametrize("name", FORMATS)
def test_a_small_change_of_decoded_weights_is_lost_when_they_are_encoded_again(name) -> None:
    """And stays, on average, in weights that lie on no codes: why the schema refuses the former."""
    torch.manual_seed(0)
    layer = nn.Linear(256, 256)
    nn.init.normal_(layer.weight)
    change = 1e-3 * torch.randn(256, 1) @ torch.randn(1, 256)

    def again(weight: torch.Tensor) -> torch.Tensor:
        layer.weight = nn.Parameter(weight)
        return QuantisedLinear(layer, name).full_weight()

    def share(weight: torch.Tensor) -> float:
        """Of the change, what is there after it was encoded."""
        moved = again(weight + change) - again(weight)
        return ((moved * change).sum() / change.square().sum()).item()

    own = layer.weight.detach()
    assert share(again(own)) < 0.5
    assert share(own) == pytest.approx(1.0, abs=0.3)
