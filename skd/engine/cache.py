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
from transformers.cache_utils import Cache, DynamicLayer

from skd.engine.graphs import Graph
from skd.engine.positions import limits
from skd.engine.shards import is_sharded
from skd.engine.states import final_states


class SlotCache(Cache):
    """Keys and values [B, heads, slots, d] per layer, for unmodified Hugging Face decoders."""

    def __init__(self, rows: int, slots: int) -> None:
        super().__init__(layers=[])
        self.shape = (rows, slots)
        self.rows = torch.empty(0)
        self.positions = torch.empty(0)
        self.fresh = False
        self.used = 0

    def place(self, positions: Tensor, used: int, rows: Tensor | None) -> None:
        """The next forward writes at `positions` [B, T] and reads the first `used` slots.

        rows: [B] those that begin here, so that they read only what this forward writes;
        None: all rows, going on.
        """
        self.fresh = rows is not None
        rows = torch.arange(len(positions), device=positions.device) if rows is None else rows
        self.rows = rows[:, None]
        self.positions = positions
        self.used = used

    def update(
        self,
        key_states: Tensor,
        value_states: Tensor,
        layer_idx: int,
        cache_kwargs: dict[str, Any] | None = None,  # noqa: ARG002 (the library passes it)
    ) -> tuple[Tensor, Tensor]:
        if layer_idx == len(self.layers):
            rows, slots = self.shape
            layer = DynamicLayer()  # where the library looks for cross-attention's
            shape = (rows, key_states.shape[1], slots, key_states.shape[3])
            layer.keys = key_states.new_zeros(shape)
            layer.values = value_states.new_zeros((*shape[:3], value_states.shape[3]))
            self.layers.append(layer)
        keys, values = self.layers[layer_idx].keys, self.layers[layer_idx].values
        places = self.rows.to(keys.device), slice(None), self.positions.to(keys.device)
        keys[places] = key_states.transpose(1, 2)
        values[places] = value_states.transpose(1, 2)
        if self.fresh:
            return key_states, value_states
        return keys[:, :, : self.used], values[:, :, : self.used]

    def get_seq_length(self, layer_idx: int = 0) -> int:  # noqa: ARG002
        return self.used

    def select(self, rows: Tensor) -> None:
        """Keep these rows only."""
        self.shape = (len(rows), self.shape[1])
        for layer in self.layers:
            rows = rows.to(layer.keys.device)
            layer.keys, layer.values = layer.keys[rows], layer.values[rows]


class CachedModel:
    """One decoder with its slot cache: `states` extends every row at its own positions.

    Proposals behind the last position of the model's tables stand in its place: they are over the
    budget and thrown away, and nothing else is read there.
    """

    def __init__(self, model: PreTrainedModel, rows: int, slots: int) -> None:
        self.model = model
        self.end = min([slots, *(limit.positions for limit in limits(model))])
        self.cache = SlotCache(rows, slots)
        self.warm: set[int] = set()  # tokens per row of the passes that there have been
        self.graphs: dict[int, Graph] = {}  # by tokens per row
        # A graph is of one device, and of weights that stay where they are
        devices = {parameter.device for parameter in model.parameters()}
        self.spread = len(devices) > 1 or is_sharded(model)

    def begin(self, tokens: Tensor, prompt_lengths: Tensor) -> None:
        """Fill the cache from prompts [B, T], right-padded; those of like length together.

        Slots behind a short prompt are overwritten later.
        """
        for part in prompt_lengths.argsort().split(PREFILL_ROWS):
            width = int(prompt_lengths[part].max())
            positions = torch.arange(width, device=part.device).expand(len(part), -1)
            self.launched(tokens[part, :width], positions, used=width, rows=part)

    def states(self, tokens: Tensor, positions: Tensor, used: int) -> Tensor:
        """[B, T] tokens at [B, T] positions -> [B, T, d] final hidden states.

        On CUDA the second pass of as many tokens a row is captured, and replayed from then on: what
        a pass of few tokens costs there is its launches (docs/benchmarks.md).
        """
        if tokens.device.type != "cuda" or self.spread:
            return self.launched(tokens, positions, used)
        width, everything = tokens.shape[1], self.cache.shape[1]
        if width not in self.warm:  # libraries set themselves up in the first pass
            self.warm.add(width)
            return self.launched(tokens, positions, used)
        if width not in self.graphs:
            self.graphs[width] = Graph(
                lambda tokens, positions: self.launched(tokens, positions, everything),
                tokens,
                positions,
            )
        return self.graphs[width](tokens, positions)

    def select(self, rows: Tensor) -> None:
        """Keep these rows only; what was captured read the former caches."""
        self.cache.select(rows)
        self.graphs.clear()

    def launched(
        self, tokens: Tensor, positions: Tensor, used: int, rows: Tensor | None = None
    ) -> Tensor:
        """`states` without graphs; of these `rows`, from their first token on, or of all."""
        positions, used = positions.clamp_max(self.end - 1), min(used, self.end)
        self.cache.place(positions, used, rows)
        return final_states(
            self.model,
            tokens,
            positions,
            used,
            cache_position=torch.arange(tokens.shape[1], device=tokens.device),
            past_key_values=self.cache,
            use_cache=True,
        )


PREFILL_ROWS = 32  # of prompts, in one pass


def prefills(rows: int) -> int:
    """Passes that `CachedModel.begin` makes over so many prompts."""
    return -(-rows // PREFILL_ROWS)
