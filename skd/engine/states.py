"""A model in two halves: its decoder's final hidden states, and its head over them.

States are [.., d] where logits are [.., V], so they can be kept, and the head is applied where
it is needed: never at prompt tokens, and a chunk at a time. Any unmodified Hugging Face
decoder goes through here. Knows no sampling and no losses.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from skd.engine.positions import require_positions, text_config
from skd.engine.sequences import TokenBatch
from skd.engine.sources import states_of_rows
from skd.errors import UserError


def decoder_of(model: PreTrainedModel) -> PreTrainedModel:
    """The part of a causal LM that gives final hidden states.

    Raises `UserError` for a model that does not keep its decoder apart from its head.
    """
    decoder = model.get_decoder()
    if decoder is model:  # GPT-2, GPT-NeoX, Falcon name their decoder otherwise
        decoder = model.base_model
    if decoder is model:
        raise UserError(
            f"{type(model).__name__} has no decoder apart from its head; "
            f"docs/own-models.md lists the families that work"
        )
    return decoder


def final_states(
    model: PreTrainedModel, tokens: Tensor, positions: Tensor, used: int, **options: Any
) -> Tensor:
    """[B, T] tokens at positions [B or 1, T] -> [B, T, d]: what the head reads.

    `used` bounds the slots that are attended to: one more than the largest position.
    """
    assert tokens.ndim == 2
    assert positions.shape in (tokens.shape, (1, tokens.shape[1]))
    output = decoder_of(model)(
        input_ids=tokens,
        position_ids=positions,
        attention_mask=attention_mask(model, positions, used),
        **{"use_cache": False, **options},
    )
    states: Tensor = output.last_hidden_state
    return states


@contextmanager
def evaluating(*models: PreTrainedModel) -> Iterator[None]:
    """Dropout off in these models; each one's mode is restored whatever happens."""
    modes = [model.training for model in models]
    for model in models:
        model.eval()
    try:
        yield
    finally:
        for model, mode in zip(models, modes, strict=True):
            model.train(mode)


@torch.no_grad()
def states_width(model: PreTrainedModel) -> int:
    """d of the final states. OPT-350m's are narrower than its layers: no config says how much."""
    if model.config.is_encoder_decoder:
        return int(model.config.hidden_size)
    if model not in _WIDTHS:
        start = torch.zeros(1, 1, dtype=torch.long, device=model.device)
        with evaluating(model):
            _WIDTHS[model] = final_states(model, start, start, used=1).shape[-1]
    return _WIDTHS[model]


_WIDTHS: WeakKeyDictionary[PreTrainedModel, int] = WeakKeyDictionary()


def precision(model: PreTrainedModel) -> torch.autocast:
    """bf16 compute over fp32 master weights on an accelerator; plain fp32 on a CPU."""
    kind = model.device.type
    return torch.autocast(kind, dtype=torch.bfloat16, enabled=kind != "cpu")


def head(model: PreTrainedModel, states: Tensor) -> Tensor:
    """[N, d] -> [N, rows of the embedding] raw logits, with the model's own scaling and capping.

    The model's forward runs with its decoder's result given, because families differ in what
    they do between the output embedding and the logits (Gemma 2 caps, Granite divides).
    """
    body = _body(model)
    shadowed = vars(body).get("forward")
    given = _Given(last_hidden_state=states[None])
    body.forward = lambda *_, **__: given
    try:
        output = model(**_no_tokens(model, given), use_cache=False, **_plain(model))
    finally:
        if shadowed is None:
            del body.forward
        else:
            body.forward = shadowed
    logits: Tensor = output.logits.squeeze(0)  # by [0] the backward pass would fill a copy
    return logits


def _body(model: PreTrainedModel) -> torch.nn.Module:
    """What the head's input comes from: the decoder, or what holds it beside eyes and ears."""
    decoder = decoder_of(model)
    if text_config(model) is model.config:
        return decoder
    holds = (part for part in model.children() if any(inner is decoder for inner in part.modules()))
    return next(holds)


@dataclass
class _Given(ModelOutput):
    """A decoder's result with every field that some family's head asks for."""

    last_hidden_state: Tensor | None = None
    past_key_values: None = None
    hidden_states: None = None
    attentions: None = None
    cross_attentions: None = None
    router_logits: None = None
    image_hidden_states: None = None


def _plain(model: PreTrainedModel) -> dict[str, bool]:
    """Mixtures of experts add a balancing loss unless they are told that there are no routers."""
    return {"output_router_logits": False} if hasattr(model.config, "output_router_logits") else {}


def _no_tokens(model: PreTrainedModel, encoded: _Given) -> dict[str, Any]:
    """An encoder–decoder would ask its encoder too, unless it is told what that said."""
    if model.config.is_encoder_decoder:
        return {"encoder_outputs": (encoded[0],), "decoder_input_ids": _NO_TOKENS}
    return {"input_ids": _NO_TOKENS}


_NO_TOKENS = torch.empty(1, 0, dtype=torch.long)


def batch_states(model: PreTrainedModel, batch: TokenBatch) -> Tensor:
    """[B, L, d] states of a right-padded batch; those at padding mean nothing."""
    if model.config.is_encoder_decoder:
        return states_of_rows(model, batch.tokens, batch.prompt_lengths, batch.lengths)
    width = batch.tokens.shape[1]
    require_positions(model, width, cached=False)
    positions = torch.arange(width, device=batch.tokens.device)[None]
    return final_states(model, batch.tokens, positions, width)


def attention_mask(
    model: PreTrainedModel, positions: Tensor, used: int
) -> Tensor | dict[str, Tensor]:
    """[B, 1, T, used] causal mask; one per layer type where layers differ (Gemma 2, 3, Llama 4).

    Made here although the library would make one: its general way takes a fifth of a small
    model's step. Right padding needs no more than causality.
    """
    config = text_config(model)
    slots = torch.arange(used, device=positions.device)
    places = positions[:, None, :, None]
    full = places >= slots
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if kinds is None:  # Mistral, Phi-3: every layer slides
        return _as_read(full & (places - slots < window) if window else full, model)
    masks = {"full_attention": full}
    if window and "sliding_attention" in kinds:
        masks["sliding_attention"] = full & (places - slots < window)
    if "chunked_attention" in kinds:
        chunk = config.attention_chunk_size
        masks["chunked_attention"] = full & (places // chunk == slots // chunk)
    if len(masks) == 1:
        return _as_read(full, model)
    return {kind: _as_read(mask, model) for kind, mask in masks.items()}


def _as_read(mask: Tensor, model: PreTrainedModel) -> Tensor:
    """SDPA reads booleans; eager attention adds its mask to the scores."""
    if text_config(model)._attn_implementation != "eager":
        return mask
    lowest = torch.finfo(model.dtype).min
    return torch.zeros_like(mask, dtype=model.dtype).masked_fill(~mask, lowest)
