"""What an encoder–decoder has and a decoder lacks: a source, which its encoder reads once.

A prompt of such a model is one row of ids: the source, then what its decoder begins with (a start
token, and a language's code where one is forced). The other modules see that row alone, with slots
and lengths as any prompt has them. Here it is taken apart: the decoder counts its positions from
behind the source. Knows no sampling, no losses and no text.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from skd.engine.positions import require_positions
from skd.errors import UserError


def decoder_start(model: PreTrainedModel) -> tuple[int, ...]:
    """The ids that an encoder–decoder's decoder begins with; (): the model is a decoder alone.

    They are those of the library's own `generate`. Raises `UserError` without a start token.
    """
    if not model.config.is_encoder_decoder:
        return ()
    if model.config.decoder_start_token_id is None:
        raise UserError(
            f"{type(model).__name__} does not say what its decoder starts with; set "
            "decoder_start_token_id in its config.json"
        )
    forced = model.generation_config.forced_bos_token_id
    start = (model.config.decoder_start_token_id,)
    return start if forced is None else (*start, forced)


@dataclass(frozen=True)
class Encoded:
    """Sources as an encoder left them.

    states  [B, S, d]; [B, 0, d] where the keys and values that they gave are cached
    mask    [B, S] 1 at a source's tokens, 0 behind them
    """

    states: Tensor
    mask: Tensor


def source_mask(lengths: Tensor, width: int) -> Tensor:
    """[B, S] 1 at the tokens of sources of these lengths [B]."""
    return (torch.arange(width, device=lengths.device) < lengths[:, None]).long()


def encode(model: PreTrainedModel, tokens: Tensor, lengths: Tensor) -> Encoded:
    """The encoder over rows [B, T] that begin with sources of these lengths [B]."""
    shortest, longest = torch.stack(lengths.aminmax()).tolist()
    if shortest < 1:
        raise ValueError("a prompt has no source before what the decoder begins with")
    mask = source_mask(lengths, longest)
    output = model.get_encoder()(input_ids=tokens[:, :longest], attention_mask=mask)
    return Encoded(output.last_hidden_state, mask)


def decode(
    model: PreTrainedModel,
    tokens: Tensor,
    positions: Tensor,
    used: int,
    sources: Encoded,
    **options: Any,
) -> Tensor:
    """[B, T] the decoder's tokens at its positions [B or 1, T] -> [B, T, d]: what the head reads.

    `used` bounds the decoder's positions that are attended to.
    """
    output = model.get_decoder()(
        input_ids=tokens,
        attention_mask=_causal_mask(model, positions, used),
        encoder_hidden_states=sources.states,
        encoder_attention_mask=sources.mask,
        **{"use_cache": False, **options},
    )
    states: Tensor = output.last_hidden_state
    return states


def _causal_mask(model: PreTrainedModel, positions: Tensor, used: int) -> Tensor:
    """[B or 1, 1, T, used] what is added to the scores: T5 adds it to its bias too."""
    seen = positions[:, None, :, None] >= torch.arange(used, device=positions.device)
    lowest = torch.finfo(model.dtype).min
    return torch.zeros_like(seen, dtype=model.dtype).masked_fill(~seen, lowest)


def states_of_rows(
    model: PreTrainedModel, tokens: Tensor, prompt_lengths: Tensor, lengths: Tensor
) -> Tensor:
    """[B, L] whole rows, right-padded -> [B, L, d] at their slots.

    Those of a source's tokens and of padding mean nothing.
    """
    sources = prompt_lengths - len(decoder_start(model))  # [B]
    longest, width = torch.stack([sources.max(), (lengths - sources).max()]).tolist()
    require_positions(model, max(longest, width), cached=False)
    own = torch.arange(width, device=tokens.device)
    behind = (sources[:, None] + own).clamp_max(tokens.shape[1] - 1)
    read = encode(model, tokens, sources)
    states = decode(model, tokens.gather(1, behind), own[None], width, read)
    slots = torch.arange(tokens.shape[1], device=tokens.device)
    back = (slots - sources[:, None]).clamp(0, width - 1)  # [B, L]
    return states.gather(1, back[..., None].expand(-1, -1, states.shape[-1]))


# ------------------------------------------------------------------- positions of each row
Rule = Callable[..., Tensor]


@dataclass(frozen=True)
class Positioned:
    """A method of a decoder's module that reads positions, and how to make it read each row's."""

    module: nn.Module
    method: str
    # The method, the positions [B, T], their bound -> what stands in its place
    at: Callable[[Rule, Tensor, int], Rule]


def positioned(model: PreTrainedModel) -> list[Positioned]:
    """All such methods of this model's decoder."""
    decoder = model.get_decoder()
    found = [
        Positioned(module, "compute_bias", _bias_at)
        for module in decoder.modules()
        if getattr(module, "has_relative_attention_bias", False)
    ]
    if hasattr(decoder, "embed_positions"):
        found.append(Positioned(decoder.embed_positions, "forward", _table_at))
    return found


def _bias_at(own: Rule, positions: Tensor, _: int) -> Rule:
    """T5: a bias of the scores, by the distance between two positions."""

    def bias(query_length: Any, key_length: int, device: torch.device, **_: Any) -> Tensor:
        flat = own(query_length, key_length, device, positions.flatten())  # [1, heads, B·T, used]
        return flat[0].unflatten(1, positions.shape).transpose(0, 1)

    return bias


def _table_at(own: Rule, positions: Tensor, used: int) -> Rule:
    """A vector per position. BART's and Marian's tables are asked for it; M2M-100's counts tokens,
    so that it is asked for all positions that there are.
    """
    if "position_ids" in inspect.signature(own).parameters:
        flat = positions.flatten()
        return lambda given, *_, **__: own(given, position_ids=flat).view(*positions.shape, -1)
    everything = positions.new_empty(1, used, 0)
    return lambda *_, **__: own(None, everything)[0][positions]


@contextmanager
def each_row_at(places: list[Positioned], positions: Tensor, used: int) -> Iterator[None]:
    """What a decoder adds by position is of each row's own positions [B, T] meanwhile.

    The library's decoders give all rows of a batch the same ones.
    """
    with ExitStack() as shadows:
        for place in places:
            own = getattr(place.module, place.method)
            shadows.enter_context(_shadowed(place, place.at(own, positions, used)))
        yield


@contextmanager
def _shadowed(place: Positioned, other: Rule) -> Iterator[None]:
    former = vars(place.module).get(place.method)
    setattr(place.module, place.method, other)
    try:
        yield
    finally:
        if former is None:
            delattr(place.module, place.method)
        else:
            setattr(place.module, place.method, former)
