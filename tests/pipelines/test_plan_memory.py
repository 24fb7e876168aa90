"""The arithmetic of memory beside what PyTorch holds."""

from __future__ import annotations

import weakref
from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import PreTrainedModel

from pipelines.planning import memory
from pipelines.planning.configurations import part_of
from pipelines.planning.hours import body
from pipelines.planning.sizes import measured
from skd.engine.cache import CachedModel
from skd.engine.cached_sources import CachedEncoderDecoder, cached
from skd.engine.sequences import Vocabulary
from skd.engine.sources import decoder_start, states_of_rows
from skd.engine.spans import Classes, Mark, Spans
from skd.engine.states import final_states
from skd.models.adapters import add_adapter_
from skd.models.loading import measure_model
from skd.models.placement import OFFLOAD
from skd.models.quantised import FORMATS, quantise_
from skd.training import chunks
from skd.training.chunks import Predictions
from skd.training.cross_tokenizer import Bridge, span_loss
from skd.training.losses import Terms, response_loss
from skd.training.methods import DIVERGENCE
from skd.training.optimiser import Trained
from skd.training.settings import Adapter, Divergence, Optimisation
from tests.tiny import ENCODER_DECODERS, FAMILIES, build

# Wide enough that what does not grow with the widths (frequencies, masks) weighs little.
SHAPE = {
    "hidden_size": 96,
    "intermediate_size": 256,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
# Families with a name of their own for the width of their feed-forward layer
_FEED_FORWARD: dict[str, dict[str, object]] = {
    "gpt2": {"n_inner": 256, "intermediate_size": None},
    "falcon": {"ffn_hidden_size": 256, "intermediate_size": None},
    "qwen2_moe": {"mlp_only_layers": []},
}
ROWS, LENGTH = 3, 24
PLAIN = Optimisation(steps=1, batch_size=1, learning_rate=0.1)
# The same of an encoder–decoder, as each family names it
SOURCE, DECODED = 20, 12
BART_SHAPE = {
    "d_model": 96,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 192,
    "decoder_ffn_dim": 256,
}
T5_SHAPE = {
    "d_model": 96,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "num_heads": 4,
    "d_kv": 24,
    "d_ff": 256,
}


def model(family: str, **changes: object) -> PreTrainedModel:
    built = build(family, dtype=torch.float32, **{**SHAPE, **changes})
    built.config._attn_implementation = "sdpa"
    return built


def encoder_decoder(family: str, **changes: object) -> PreTrainedModel:
    shape: dict[str, object] = T5_SHAPE if "t5" in family else BART_SHAPE
    built = build(family, dtype=torch.float32, **{**shape, **changes})
    if "t5" not in family:  # which has one attention
        built.set_attn_implementation("sdpa")
    return built


def kept_for_backward(model: PreTrainedModel) -> int:
    """Bytes that a forward pass keeps, each storage once and the weights apart."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    seen: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            seen[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        if model.config.is_encoder_decoder:
            start = len(decoder_start(model))
            tokens = torch.zeros(ROWS, SOURCE + DECODED, dtype=torch.long)
            prompts = torch.full((ROWS,), SOURCE + start)
            states = states_of_rows(model, tokens, prompts, torch.full((ROWS,), SOURCE + DECODED))
        else:
            tokens = torch.zeros(ROWS, LENGTH, dtype=torch.long)
            states = final_states(model, tokens, torch.arange(LENGTH)[None], LENGTH)
    assert states.requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in seen.values())


@pytest.mark.parametrize(
    ("family", "within"),
    {
        "llama": 0.02,
        "qwen2": 0.02,
        "mistral_sliding": 0.02,
        "qwen3": 0.1,
        "phi3_sliding": 0.1,
        "gemma2": 0.1,
        "gemma3": 0.1,
        "gpt2": 0.1,
        "falcon": 0.1,
        "mixtral": 0.1,
        "qwen2_moe": 0.15,  # whose shared expert is weighed too
        "qwen3_moe": 0.1,
        "gpt_neox": 0.15,  # whose values are a view of queries, keys and values together
    }.items(),
)
def test_activations_are_what_autograd_keeps(family, within) -> None:
    built = model(family, **_FEED_FORWARD.get(family, {}))
    sizes = measured(built.config, family, "a test")
    planned = memory.activations(sizes, ROWS, LENGTH, memory.FULL)
    assert planned == pytest.approx(kept_for_backward(built), rel=within)


@pytest.mark.parametrize("family", ENCODER_DECODERS)
@pytest.mark.parametrize("source", [4, 20])
def test_an_encoder_decoder_keeps_what_both_halves_read(family, source, monkeypatch) -> None:
    monkeypatch.setattr(f"{__name__}.SOURCE", source)
    built = encoder_decoder(family)
    sizes = measured(built.config, family, "a test")
    planned = memory.activations(sizes, ROWS, DECODED, memory.FULL)
    planned += memory.source_activations(sizes, ROWS, source, DECODED, memory.FULL)
    assert planned == pytest.approx(kept_for_backward(built), rel=0.1)


def test_checkpointing_keeps_what_enters_a_layer() -> None:
    built = model("llama", num_hidden_layers=8).train()
    built.gradient_checkpointing_enable({"use_reentrant": False})
    sizes = measured(built.config, "llama", "a test")
    whole = memory.activations(sizes, ROWS, LENGTH, memory.FULL)
    cut = memory.activations(sizes, ROWS, LENGTH, memory.FULL, checkpointing=True)
    one = memory.layer_activations(sizes, ROWS, LENGTH, memory.FULL)
    assert cut - one == pytest.approx(kept_for_backward(built), rel=0.1)
    assert cut < whole / 3


@pytest.mark.parametrize("family", [*FAMILIES, *ENCODER_DECODERS])
def test_parameters_are_counted_without_a_weight(family) -> None:
    built = build(family)
    sizes = measured(built.config, family, "a test")
    assert sizes.parameters == built.num_parameters()
    assert sizes.vocabulary == built.get_output_embeddings().weight.shape[0]


def test_the_optimiser_holds_two_numbers_a_parameter() -> None:
    built = model("llama")
    optimizer = torch.optim.AdamW(built.parameters(), fused=True)
    built(torch.zeros(1, 4, dtype=torch.long)).logits.sum().backward()
    optimizer.step()
    states = [value for state in optimizer.state.values() for value in state.values()]
    held = sum(value.nbytes for value in states if value.ndim)
    sizes = measured(built.config, "llama", "a test")
    assert memory.optimiser(sizes, PLAIN) == held
    assert memory.gradients(sizes, PLAIN) == sum(p.grad.nbytes for p in built.parameters())


@pytest.mark.parametrize(("weights", "width"), [("float32", 4), ("bfloat16", 2)])
@pytest.mark.parametrize("optimiser", ["adamw", "adamw_8bit"])
@pytest.mark.parametrize("adapter", [None, Adapter(4), Adapter(4, targets=["q_proj", "lm_head"])])
def test_what_is_trained_takes_what_is_planned(adapter, optimiser, weights, width) -> None:
    """Weights, gradients, moments and master copies, over trainable parameters alone."""
    built = model("llama", tie_word_embeddings=False).to(getattr(torch, weights))
    sizes = measured(built.config, "llama", "a test")
    if adapter is not None:
        add_adapter_(built, adapter, 1)
    run = replace(PLAIN, weights=weights, optimiser=optimiser, adapter=adapter)
    trained = Trained(built, run)
    for parameter in trained.held.values():
        parameter.grad = torch.ones_like(parameter)
    gradients = sum(parameter.grad.nbytes for parameter in trained.held.values())
    trained.step(0.1)
    assert memory.trained(sizes, run) == sum(p.nbytes for p in built.parameters())
    assert memory.gradients(sizes, run) == gradients
    copies = [own for name, own in trained.full.items() if own is not trained.held[name]]
    states = [value for state in trained.optimizer.state.values() for value in state.values()]
    held = sum(value.nbytes for value in (*copies, *states) if value.ndim)
    spare = 2 * 256 * len(trained.held) if optimiser == "adamw_8bit" else 0  # of last blocks
    assert memory.optimiser(sizes, run) <= held <= memory.optimiser(sizes, run) + 1.02 * spare


@pytest.mark.parametrize("weights", ["float32", "bfloat16", "int8", "nf4"])
def test_weights_take_what_their_bits_say(weights) -> None:
    built = model("qwen2", hidden_size=64, intermediate_size=128, tie_word_embeddings=False)
    sizes = measured(built.config, "qwen2", "a test")
    built.to(torch.float32 if weights == "float32" else torch.bfloat16)
    if weights in FORMATS:
        quantise_(built, weights, "cpu")
    scales = [buffer for name, buffer in built.named_buffers() if name.endswith("scales")]
    held = sum(x.nbytes for x in (*built.parameters(), *scales))
    made = 2 * 64 * 128 if weights in FORMATS else 0  # of one layer, for a moment
    assert memory.held(sizes, weights) == pytest.approx(held + made, rel=0.05)


def test_layers_that_stand_elsewhere_are_not_counted_here() -> None:
    sizes = measured(model("llama", num_hidden_layers=4).config, "llama", "a test")
    here, away, lent = (
        memory.here(replace(sizes, layers_at=place), "float32") for place in (None, "cpu", OFFLOAD)
    )
    assert here == memory.held(sizes, "float32")
    assert away == 4 * (sizes.parameters - sizes.in_layers)
    assert lent - away == pytest.approx((here - away) / 4, rel=0.01)


class Alive(TorchDispatchMode):
    """The most bytes that stood at once of what was made meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.tensors: Counter[int] = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self.now += 0 if self.tensors[storage._cdata] else storage.nbytes()
                self.tensors[storage._cdata] += 1
                weakref.finalize(tensor, self._gone, storage._cdata, storage.nbytes())
        self.most = max(self.most, self.now)
        return made

    def _gone(self, storage: int, nbytes: int) -> None:
        self.tensors[storage] -= 1
        self.now -= 0 if self.tensors[storage] else nbytes


@pytest.mark.parametrize("own_ids", [False, True])
@pytest.mark.parametrize("name", ["forward_kl", "reverse_kl", "jsd"])
def test_a_chunks_logits_are_not_more_than_planned(name, own_ids, monkeypatch) -> None:
    size, tokens, alike = 4096, 64, 4000
    monkeypatch.setitem(chunks.CHUNK_LOGITS, "cpu", size * tokens)
    monkeypatch.setattr(memory, "CHUNK_LOGITS", chunks.CHUNK_LOGITS)
    student, teacher = (
        build(seed=seed, dtype=torch.float32, vocab_size=size, eos_token_id=None) for seed in (0, 1)
    )
    states = torch.randn(2, 3 * tokens, student.config.hidden_size)
    predictions = Predictions(student, states[0].requires_grad_()), Predictions(teacher, states[1])
    terms = Terms(DIVERGENCE, Divergence(name=name), torch.zeros(3 * tokens, dtype=torch.long))
    sizes = measured(student.config, "llama", "a test")
    planned = memory.chunk_logits(sizes, replace(sizes, own_ids=own_ids), "cpu")
    with Alive() as alive:
        if own_ids:
            classes = torch.arange(size).clamp_max(alike)
            bridge = Bridge(
                teacher,
                Vocabulary(size, (1,), 0, ()),
                Classes(classes, classes, alike),
                lambda example: pytest.fail(f"{example} was translated"),
            )
            marks = torch.full((3 * tokens,), Mark.ALIKE)
            spans = Spans(marks, torch.zeros(3 * tokens, dtype=torch.float64))
            span_loss(terms, *predictions, spans, bridge, size)
        else:
            response_loss(terms, *predictions, size)
    assert planned / 2 < alive.most < planned


def test_a_cache_is_what_the_slot_cache_holds() -> None:
    built = model("llama", num_attention_heads=2, num_key_value_heads=2)
    sizes = measured(built.config, "llama", "a test")
    cached, slots = CachedModel(built, ROWS, 40), 40
    tokens = torch.zeros(ROWS, 5, dtype=torch.long)
    with torch.no_grad():
        cached.begin(tokens, torch.full((ROWS,), 5))
    held = sum(x.nbytes for layer in cached.cache.layers for x in (layer.keys, layer.values))
    assert memory.cache(sizes, ROWS, slots, memory.FULL) == held


@pytest.mark.parametrize("family", ["m2m100", "t5"])
def test_an_encoder_decoders_caches_hold_a_source_as_a_decoders_hold_its_prompt(family) -> None:
    built = encoder_decoder(family)
    sizes, start = measured(built.config, family, "a test"), decoder_start(built)
    tokens = torch.zeros(ROWS, SOURCE + DECODED, dtype=torch.long)
    caches = cached(built, tokens.shape)
    assert isinstance(caches, CachedEncoderDecoder)
    with torch.no_grad():
        caches.begin(tokens, torch.full((ROWS,), SOURCE + len(start)))
    layers = [*caches.cache.layers, *caches.crossed.layers]
    held = sum(x.nbytes for layer in layers for x in (layer.keys, layer.values))
    assert memory.cache(sizes, ROWS, SOURCE + DECODED, memory.FULL) == held


@pytest.mark.parametrize("family", ENCODER_DECODERS)
def test_halves_are_told_apart(family) -> None:
    """All but the embeddings is in one of them, each with its own depth and widths."""
    built = encoder_decoder(family)
    sizes = measured(built.config, family, "a test")
    assert sizes.encoder is not None
    assert (sizes.layers, sizes.encoder.layers) == (3, 2) == (measure_model(built).layers, 2)
    inside = {
        "encoder": sum(p.numel() for p in built.get_encoder().parameters()),
        "decoder": sum(p.numel() for p in built.get_decoder().parameters()),
    }
    embedding = built.get_input_embeddings().weight.numel()
    assert sizes.encoder.parameters == inside["encoder"] - embedding
    assert body(sizes) == inside["decoder"] - embedding


def test_a_part_of_a_model_is_counted_like_a_model_of_as_many_layers() -> None:
    whole = measured(model("llama", num_hidden_layers=5).config, "whole", "a test")
    part = measured(model("llama", num_hidden_layers=2).config, "part", "a test")
    assert replace(part_of(whole, 2), name="part") == part


def test_everything_grows_with_what_it_is_multiplied_by() -> None:
    sizes = measured(model("llama").config, "llama", "a test")
    for part in (memory.activations, memory.cache, memory.kept_states):
        assert part(sizes, 2 * ROWS, LENGTH, 4) > part(sizes, ROWS, LENGTH, 4)
        assert part(sizes, ROWS, 2 * LENGTH, 4) > part(sizes, ROWS, LENGTH, 4)
        assert part(sizes, ROWS, LENGTH, 2) < part(sizes, ROWS, LENGTH, 4)


@pytest.mark.parametrize(
    ("device", "held", "kept"),
    [
        ("cpu", ("bfloat16", "float32"), True),
        ("cpu", ("float32", "bfloat16"), True),
        ("cpu", ("float32", "nf4"), False),
        ("cuda", ("bfloat16", "bfloat16"), False),
    ],
)
def test_code_for_products_is_kept_where_a_cpu_multiplies_bf16(device, held, kept) -> None:
    assert (memory.products_code(device, *held) > 0) == kept
