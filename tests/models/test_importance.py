"""What leaving out a layer costs, held against models that were built without it."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import nn

from skd.engine.sequences import TokenExample, collate
from skd.engine.states import decoder_of
from skd.errors import UserError
from skd.models import importance
from skd.models.importance import (
    Calibration,
    evenly_spaced,
    layer_count,
    losses_without_each,
    text_loss,
)
from tests.tiny import SIZE, build

LAYERS = 4
FAMILIES = ("llama", "qwen2", "gemma2", "gemma3", "gpt2", "gpt_neox", "falcon", "mixtral")
EXAMPLES = [
    TokenExample((3, 4, 5), (6, 7, 1)),
    TokenExample((8,), (9, 10, 11, 12, 1)),
    TokenExample((13, 14, 15, 16, 17, 18, 19), (20, 2)),
]


@pytest.fixture
def calibration() -> Calibration:
    return Calibration([collate(EXAMPLES[:2], 0), collate(EXAMPLES[2:], 0)], SIZE)


def model_without(model, left_out: set[int]):
    """A copy that was cut by hand."""
    cut = copy.deepcopy(model)
    decoder = decoder_of(cut)
    name = "h" if hasattr(decoder, "h") else "layers"
    layers = getattr(decoder, name)
    setattr(decoder, name, nn.ModuleList(x for i, x in enumerate(layers) if i not in left_out))
    return cut


def plain_loss(model) -> float:
    """Each row alone, through the model's own forward: no batches, padding or states."""
    total = tokens = 0.0
    for example in EXAMPLES:
        ids = torch.tensor([example.prompt + example.response])
        with torch.no_grad():
            logits = model(input_ids=ids, use_cache=False).logits[0, :, :SIZE].double()
        predicted = logits[len(example.prompt) - 1 : -1].log_softmax(-1)
        total -= predicted.gather(1, ids[0, len(example.prompt) :, None]).sum().item()
        tokens += len(example.response)
    return total / tokens


@pytest.mark.parametrize("family", FAMILIES)
def test_a_loss_without_a_layer_is_that_of_a_model_built_without_it(family, calibration) -> None:
    model = build(family, num_hidden_layers=LAYERS)
    assert layer_count(model) == LAYERS
    assert text_loss(model, range(LAYERS), calibration) == pytest.approx(plain_loss(model))
    losses = losses_without_each(model, [0, 1, 3], calibration)
    assert losses == {
        layer: pytest.approx(plain_loss(model_without(model, {2, layer}))) for layer in (0, 1, 3)
    }
    for layer, loss in losses.items():
        kept = [other for other in (0, 1, 3) if other != layer]
        assert text_loss(model, kept, calibration) == pytest.approx(loss)


def test_a_layer_that_adds_nothing_costs_nothing(calibration) -> None:
    model = build(num_hidden_layers=LAYERS)
    idle = model.model.layers[2]
    for part in (idle.self_attn.o_proj, idle.mlp.down_proj):
        nn.init.zeros_(part.weight)
    losses = losses_without_each(model, range(LAYERS), calibration)
    whole = text_loss(model, range(LAYERS), calibration)
    assert losses[2] == whole
    assert all(losses[layer] != whole for layer in (0, 1, 3))


def test_measuring_leaves_the_model_as_it_was_even_where_it_fails(calibration, monkeypatch) -> None:
    model = build(num_hidden_layers=LAYERS).train()
    layers, weights = model.model.layers, copy.deepcopy(model.state_dict())
    losses_without_each(model, range(LAYERS), calibration)

    def fail(*_: object) -> float:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(importance, "_loss", fail)
    for measure in (losses_without_each, text_loss):
        with pytest.raises(RuntimeError, match="out of memory"):
            measure(model, range(LAYERS), calibration)
    assert model.training
    assert model.model.layers is layers
    assert not [layer for layer in layers if "forward" in vars(layer) or layer._forward_hooks]
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_every_layer_on_every_batch_is_told(calibration) -> None:
    told: list[int] = []
    model = build(num_hidden_layers=LAYERS)
    losses_without_each(model, range(LAYERS), calibration, lambda: told.append(1))
    assert len(told) == LAYERS * len(calibration.batches)


def test_layers_that_cannot_be_found_are_named() -> None:
    model = build(num_hidden_layers=LAYERS)
    model.model.layers = nn.ModuleList(model.model.layers[:2])
    with pytest.raises(UserError, match=r"LlamaModel has 0 lists of 4 layers"):
        layer_count(model)


@pytest.mark.parametrize(("layers", "count"), [(30, 15), (30, 29), (4, 1), (5, 2), (7, 7)])
def test_evenly_spaced_layers_are_as_many_and_reach_both_ends(layers, count) -> None:
    chosen = evenly_spaced(layers, count)
    assert len(set(chosen)) == count
    assert chosen == sorted(chosen)
    assert chosen[0] == 0
    assert count == 1 or chosen[-1] == layers - 1
    steps = {after - before for before, after in itertools.pairwise(chosen)}
    assert not steps or max(steps) - min(steps) <= 1
