"""A key/value cache whose slot is the token's position, so that ragged rows need no care.

Writing at (row, position) and masking by position makes rollback free: a rejected token's
slot lies at a later position, hidden by the causal mask until it is overwritten. The
library's own caches append one length for all rows. Knows no tokens and no sampling.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from skd.states import final_states


class SlotCache(Cache):
    """Keys and values [B, heads, slots, d] per layer, for unmodified Hugging Face decoders."""

    def __init__(self, rows: int, slots: int) -> None:
        super().__init__(layers=[])
        self.shape = (rows, slots)
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self.rows = torch.empty(0)
        self.positions = torch.empty(0)
        self.used = 0

    def place(self, positions: Tensor, used: int) -> None:
        """The next forward writes at `positions` [B, T] and reads the first `used` slots."""
        self.rows = torch.arange(len(positions), device=positions.device)[:, None]
        self.positions, self.used = positions, used

    def update(
        self,
        key_states: Tensor,
        value_states: Tensor,
        layer_idx: int,
        cache_kwargs: dict[str, Any] | None = None,  # noqa: ARG002 (the library passes it)
    ) -> tuple[Tensor, Tensor]:
        if layer_idx == len(self.keys):
            rows, slots = self.shape
            shape = (rows, key_states.shape[1], slots, key_states.shape[3])
            self.keys.append(key_states.new_zeros(shape))
            self.values.append(value_states.new_zeros((*shape[:3], value_states.shape[3])))
        keys, values = self.keys[layer_idx], self.values[layer_idx]
        keys[self.rows, :, self.positions] = key_states.transpose(1, 2)
        values[self.rows, :, self.positions] = value_states.transpose(1, 2)
        return keys[:, :, : self.used], values[:, :, : self.used]

    def get_seq_length(self, layer_idx: int = 0) -> int:  # noqa: ARG002
        return self.used

    def select(self, rows: Tensor) -> None:
        """Keep these rows only."""
        self.shape = (len(rows), self.shape[1])
        self.keys = [keys[rows] for keys in self.keys]
        self.values = [values[rows] for values in self.values]


class CachedModel:
    """One decoder with its slot cache: `states` extends every row at its own positions."""

    def __init__(self, model: PreTrainedModel, rows: int, slots: int) -> None:
        self.model = model
        self.cache = SlotCache(rows, slots)

    def states(self, tokens: Tensor, positions: Tensor, used: int) -> Tensor:
        """[B, T] tokens at [B, T] positions -> [B, T, d] final hidden states."""
        self.cache.place(positions, used)
        return final_states(
            self.model,
            tokens,
            positions,
            used,
            cache_position=torch.arange(tokens.shape[1], device=tokens.device),
            past_key_values=self.cache,
            use_cache=True,
        )
