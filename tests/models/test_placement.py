"""A model whose layers stand elsewhere says the same, and mixes no devices."""

from __future__ import annotations

import pytest
import torch

from skd.engine.cached_sources import cached
from skd.engine.rollout import uniform_noise
from skd.engine.sampling import Interleaving, sample
from skd.engine.seeding import generator
from skd.engine.settings import Acceptance, Sampling
from skd.engine.states import final_states, head
from skd.errors import UserError
from skd.models import placement
from skd.models.layers import layers_of
from skd.models.placement import OFFLOAD, place_
from skd.models.quantised import quantise_
from tests.tiny import SIZE, VOCABULARY, build, prompts

PLACES = ["cpu", OFFLOAD]
ROWS = prompts(6)


def emitted(teacher) -> torch.Tensor:
    noise = uniform_noise(len(ROWS), 8, generator(1))
    interleaving = Interleaving(teacher, Acceptance("top_k", 2), Sampling())
    student = build("qwen2", seed=1)
    rollout = sample(student, ROWS, VOCABULARY, Sampling(), 8, noise, interleaving)
    return torch.cat([rollout.batch.tokens.double()[..., None], rollout.batch.teacher_states], -1)


@pytest.mark.parametrize("layers", PLACES)
@pytest.mark.parametrize("weights", [None, "nf4"])
@pytest.mark.parametrize("family", ["qwen2", "gemma3", "gpt2"])
def test_tokens_and_states_are_the_same(family, weights, layers) -> None:
    def teacher():
        model = build(family, seed=3)
        if weights is not None and family != "gpt2":
            quantise_(model, weights, "cpu")
        return model

    elsewhere = teacher()
    place_(elsewhere, "cpu", layers)
    assert torch.equal(emitted(elsewhere), emitted(teacher()))


@pytest.mark.parametrize("family", ["qwen2", "gemma3", "mistral_sliding", "gpt2"])
def test_only_hidden_states_cross_between_devices(family, monkeypatch) -> None:
    """Layers on `meta`, which computes shapes and will not be mixed with another device."""
    crossings: list[torch.Size] = []
    move = placement._to

    def across(value, device):
        if isinstance(value, torch.Tensor) and value.is_meta and device.type == "cpu":
            crossings.append(value.shape)
            return torch.zeros(value.shape, dtype=value.dtype)
        return move(value, device)

    monkeypatch.setattr(placement, "_to", across)
    model = build(family)
    place_(model, "cpu", "meta")
    _, parts = layers_of(model)
    assert all(parameter.is_meta for parameter in parts.parameters())
    assert model.device.type == "cpu"
    tokens, positions = torch.zeros(2, 5, dtype=torch.long), torch.arange(5).expand(2, -1)
    with torch.no_grad():
        states = final_states(model, tokens, positions, 5)
        again = cached(model, torch.Size((2, 9)))
        again.launched(tokens, positions, 5, torch.arange(2))
        kept = again.launched(tokens[:, :4], positions[:, :4] + 5, 9)
        again.select(torch.tensor([1]))
        one = again.launched(tokens[:1, :1], positions[:1, :1] + 8, 9)
        assert head(model, states[0]).shape == (5, SIZE)
    width = states.shape[-1]
    assert crossings == [(2, 5, width), (2, 5, width), (2, 4, width), (1, 1, width)]
    assert again.spread
    assert {kept.device.type, one.device.type} == {"cpu"}
    assert all(layer.keys.is_meta for layer in again.cache.layers)


def test_an_offloaded_layer_gives_its_memory_back_when_a_pass_fails() -> None:
    model = build()
    place_(model, "cpu", OFFLOAD)
    _, parts = layers_of(model)
    before = [parameter.data_ptr() for parameter in parts.parameters()]
    with pytest.raises(RuntimeError):
        parts[0](torch.zeros(1, 2, 3))
    assert [parameter.data_ptr() for parameter in parts.parameters()] == before


def test_an_encoder_decoder_stays_whole() -> None:
    with pytest.raises(UserError, match=r"runtime.teacher_device: offload is for decoders"):
        place_(build("t5"), "cpu", OFFLOAD)
