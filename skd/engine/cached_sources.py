"""An encoder–decoder with its caches: a source is read once, as its prompt is.

What its cross-attention keeps of a source stands in a slot cache of its own, a row for each row of
the rollout, and leaves with it. Callers pass slots of whole rows, source included, as they do for a
decoder; the decoder's own cache holds positions from behind the source.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import EncoderDecoderCache

from skd.engine.cache import PREFILL_ROWS, CachedModel, SlotCache
from skd.engine.sources import (
    Encoded,
    decode,
    decoder_start,
    each_row_at,
    encode,
    positioned,
    source_mask,
)


def cached(model: PreTrainedModel, shape: torch.Size) -> CachedModel:
    """A model of either kind with caches for rows of this shape."""
    kind = CachedEncoderDecoder if model.config.is_encoder_decoder else CachedModel
    rows, slots = shape
    return kind(model, rows, slots)


class CachedEncoderDecoder(CachedModel):
    """An encoder–decoder whose prompts are a source and what its decoder begins with."""

    def __init__(self, model: PreTrainedModel, rows: int, slots: int) -> None:
        super().__init__(model, rows, slots)
        self.positioned = positioned(model)
        self.lengths = torch.empty(0)  # [B] of the sources
        self.shortest = 0
        self.crossed = SlotCache(rows, 0)
        self.read = Encoded(torch.empty(0), torch.empty(0))

    def begin(self, tokens: Tensor, prompt_lengths: Tensor) -> None:
        """Encode the sources and fill both caches; sources of like length go together."""
        start = len(decoder_start(self.model))
        self.lengths = prompt_lengths - start
        self.shortest, longest = torch.stack(self.lengths.aminmax()).tolist()
        rows, slots = self.cache.shape
        self.end = min(self.end, slots - longest)
        self.cache = SlotCache(rows, slots - longest)
        self.crossed = SlotCache(rows, longest)
        own = torch.arange(start, device=tokens.device)
        for part in self.lengths.argsort().split(PREFILL_ROWS):
            self.read = encode(self.model, tokens[part], self.lengths[part])
            width = self.read.mask.shape[1]
            self.crossed.place(own.new_tensor(range(width)).expand(len(part), -1), width, part)
            first = tokens[part].gather(1, self.lengths[part, None] + own)
            self.launched(first, own.expand(len(part), -1), used=start, rows=part)
        nothing = self.read.states.new_empty(rows, 0, self.read.states.shape[-1])
        self.read = Encoded(nothing, source_mask(self.lengths, longest))

    def states(self, tokens: Tensor, positions: Tensor, used: int) -> Tensor:
        """As a decoder's, at slots of whole rows behind their sources."""
        return super().states(tokens, positions - self.lengths[:, None], used - self.shortest)

    def select(self, rows: Tensor) -> None:
        self.crossed.select(rows)
        self.lengths = self.lengths[rows]
        self.read = Encoded(self.read.states[rows], self.read.mask[rows])
        super().select(rows)

    def launched(
        self, tokens: Tensor, positions: Tensor, used: int, rows: Tensor | None = None
    ) -> Tensor:
        positions, used = positions.clamp_max(self.end - 1), min(used, self.end)
        self.cache.place(positions, used, rows)
        both = EncoderDecoderCache(self.cache, self.crossed)
        both.is_updated = dict.fromkeys(range(len(self.crossed)), rows is None)
        with each_row_at(self.positioned, positions, used):
            return decode(
                self.model,
                tokens,
                positions,
                used,
                self.read,
                cache_position=torch.arange(tokens.shape[1], device=tokens.device),
                past_key_values=both,
                use_cache=True,
            )
