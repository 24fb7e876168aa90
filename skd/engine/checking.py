"""Whether a decoder says the same through the slot cache, in pieces and among others, as alone.

Recurrent decoders, and those whose attention does not read the mask and positions that it is given,
cannot be sampled by position. A check is as long as the attention's windows and chunks ask for, and
is made once for each model and length. Knows no sampling and no text.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import PreTrainedModel

from skd.engine.cache import CachedModel
from skd.engine.cached_sources import CachedEncoderDecoder
from skd.engine.positions import attention_breaks, limits, reach, require_positions, text_config
from skd.engine.sources import decoder_start
from skd.engine.states import decoder_of, evaluating, head
from skd.errors import UserError, out_of_memory

_SHORT = (8, 6)  # tokens of the two rows that every model is tried on
_STEPS = (3, 1, 1)  # tokens of each pass after the prompts
_BEGINS = ((0, 2, 4), (0, 1, 2))  # where the passes of two rows behind sources begin
_AT_ONCE = 3  # tokens of each of them
_IDS = 64  # the tokens tried are the first ones, which are no images or sounds
# The largest share by which a state may differ. Half precision rounds differently in pieces, and a
# mixture of experts may choose others there, so that the middle of a row's errors counts.
_TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-3}
_HALF_TOLERANCE = 0.1

# What a model raises that reads no such masks, positions or caches
_FAULTS = (
    AssertionError,
    AttributeError,
    IndexError,
    KeyError,
    RuntimeError,
    TypeError,
    ValueError,
)

_checked: WeakKeyDictionary[PreTrainedModel, int] = WeakKeyDictionary()


@torch.no_grad()
def check_decoder(model: PreTrainedModel, positions: int = _SHORT[0]) -> None:
    """Raise `UserError` unless this model can be sampled by position, at so many positions.

    What has been checked costs nothing again.
    """
    require_positions(model, positions, cached=True)
    lengths, difference = probe_lengths(model, positions), _difference
    if model.config.is_encoder_decoder:
        lengths, difference = [*_SHORT], _difference_behind_sources
    if max(lengths) <= _checked.get(model, 0):
        return
    try:
        with evaluating(model), torch.autocast(model.device.type, enabled=False):
            reason = difference(model, lengths)
    except _FAULTS as error:
        if out_of_memory(error):
            raise
        reason = f"{type(error).__name__}: {error}"
    if reason:
        raise UserError(
            f"{type(model).__name__} cannot be sampled by position ({reason}); "
            f"docs/own-models.md lists the families that can"
        )
    _checked[model] = max(lengths)


def check_reach(
    models: Sequence[PreTrainedModel], prompts: Sequence[Sequence[int]], noise: Tensor
) -> None:
    """`check_decoder` for as many positions as the longest row may come to."""
    prompt, response = max(map(len, prompts)), noise.shape[-1]
    for model in models:
        check_decoder(model, reach(prompt, response, len(decoder_start(model))))


def probe_lengths(model: PreTrainedModel, positions: int) -> list[int]:
    """Tokens of each row to try: two short ones, and one past each break that is within reach.

    An eighth of a window lies behind it then, so that leaving it out shows.
    """
    longest = min((limit.positions for limit in limits(model)), default=math.inf)
    passed = [end for end in attention_breaks(model) if _SHORT[0] <= end < positions]
    return [*_SHORT, *(int(min(longest, end + max(_SHORT[0], end // 8))) for end in passed)]


def _difference(model: PreTrainedModel, lengths: list[int]) -> str | None:
    """What is not the same, in words."""
    tokens = _tokens(model, len(lengths), max(lengths))
    rows = [row[:length][None] for row, length in zip(tokens, lengths, strict=True)]
    decoder = decoder_of(model)
    wanted = [decoder(input_ids=row, use_cache=False).last_hidden_state[0] for row in rows]
    logits = model(input_ids=rows[0], use_cache=False).logits[0].double()
    off = (head(model, wanted[0]).double() - logits).abs().max() / logits.abs().max()
    if not off <= _TOLERANCE.get(model.dtype, _HALF_TOLERANCE):
        return "its head over final states does not give its logits"
    made = _through_the_cache(model, tokens, torch.tensor(lengths, device=model.device))
    for length, one, other in zip(lengths, made, wanted, strict=True):
        if not _same(one.double(), other.double(), model.dtype):
            return f"its states through the cache are not those of its own pass at {length} tokens"
    return None


def _difference_behind_sources(model: PreTrainedModel, lengths: list[int]) -> str | None:
    """The same of an encoder–decoder: responses behind sources of these lengths.

    One row is ahead of the other, which is taken back by some tokens between passes.
    """
    start = torch.tensor(decoder_start(model), device=model.device)
    width = _BEGINS[0][-1] + _AT_ONCE
    drawn = _tokens(model, len(lengths), max(lengths) + width)
    sources = [row[:length] for row, length in zip(drawn, lengths, strict=True)]
    own = [torch.cat([start, row[-width:]]) for row in drawn]  # what the decoder reads
    wanted = [
        model(input_ids=source[None], decoder_input_ids=read[None], use_cache=False).logits[0]
        for source, read in zip(sources, own, strict=True)
    ]
    rows = [torch.cat(row) for row in zip(sources, own, strict=True)]
    tokens = torch.nn.utils.rnn.pad_sequence(rows, True)
    prompts = torch.tensor(lengths, device=model.device)[:, None] + len(start)
    caches = CachedEncoderDecoder(model, *tokens.shape)
    caches.begin(tokens, prompts[:, 0])
    made = torch.zeros_like(torch.stack(wanted))
    for begins in zip(*_BEGINS, strict=True):
        at = torch.tensor(begins, device=model.device)[:, None] + len(start) - 1
        at = at + torch.arange(_AT_ONCE, device=model.device)
        slots = prompts - len(start) + at
        states = caches.states(tokens.gather(1, slots), slots, int(slots.max()) + 1)
        logits = head(model, states.flatten(0, 1)).view(*at.shape, -1)
        made.scatter_(1, at[..., None].expand_as(logits), logits)
    for own_begins, one, other in zip(_BEGINS, made, wanted, strict=True):
        passed = slice(len(start) - 1, len(start) - 1 + own_begins[-1] + _AT_ONCE)
        if not _same(one[passed].double(), other[passed].double(), model.dtype):
            return "its logits through the caches are not those of its own pass"
    return None


def _tokens(model: PreTrainedModel, rows: int, width: int) -> Tensor:
    source = torch.Generator().manual_seed(0)
    ids = min(_IDS, text_config(model).vocab_size)
    return torch.randint(ids, (rows, width), generator=source).to(model.device)


def _same(made: Tensor, wanted: Tensor, dtype: torch.dtype) -> bool:
    """[T, d] both; a state that is not finite is never the same."""
    error = (made - wanted).norm(dim=-1) / wanted.norm(dim=-1)
    if dtype in _TOLERANCE:
        return bool(error.max() <= _TOLERANCE[dtype])
    return bool(error.median() <= _HALF_TOLERANCE)


def _through_the_cache(model: PreTrainedModel, tokens: Tensor, lengths: Tensor) -> list[Tensor]:
    """The states of rows [B, L] of these lengths [B], as sampling makes them.

    The short prompts go in together and each long one alone, as a long one takes memory; then all
    rows go on together, each at its own place.
    """
    cached = CachedModel(model, *tokens.shape)
    starts = lengths - sum(_STEPS)
    states: list[list[Tensor]] = [[] for _ in lengths]
    together = len(_SHORT)
    rows = torch.arange(len(lengths), device=tokens.device)
    for part in (rows[:together], *rows[together:, None]):
        width = int(starts[part].max())
        positions = torch.arange(width, device=tokens.device).expand(len(part), -1)
        made = cached.launched(tokens[part, :width], positions, width, part)
        for row, own in zip(part.tolist(), made, strict=True):
            states[row].append(own[: int(starts[row])])
    at = starts[:, None]
    for size in _STEPS:
        positions = at + torch.arange(size, device=tokens.device)
        used = int(positions.max()) + 1
        made = cached.launched(tokens.gather(1, positions), positions, used)
        for kept, own in zip(states, made, strict=True):
            kept.append(own)
        at = at + size
    return [torch.cat(kept) for kept in states]
