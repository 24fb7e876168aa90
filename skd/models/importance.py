"""Which layers a model can do without: the loss on text when a layer is left out.

Measured round by round, each one without the layers that the rounds before left out, because what
a layer is worth depends on the others. Knows ids only: no files, no text, and no training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from skd.engine.sequences import TokenBatch
from skd.engine.states import batch_states, decoder_of, evaluating, head, precision
from skd.models.layers import layers_of


@dataclass(frozen=True)
class Calibration:
    """The text that layers are measured on."""

    batches: Sequence[TokenBatch]
    # V, the number of the tokenizer's tokens
    vocabulary: int

    @property
    def tokens(self) -> int:
        """Response tokens: those that the loss is taken at."""
        return sum(batch.response_tokens for batch in self.batches)


def layer_count(model: PreTrainedModel) -> int:
    """Raises `UserError` for a model whose layers cannot be found."""
    return len(layers_of(model)[1])


def evenly_spaced(layers: int, count: int) -> list[int]:
    """`count` of the layers, the first and the last among them: the choice without measuring."""
    if count == 1:
        return [0]
    return [round(place * (layers - 1) / (count - 1)) for place in range(count)]


def text_loss(model: PreTrainedModel, kept: Sequence[int], calibration: Calibration) -> float:
    """Cross-entropy with these layers alone, nats per response token."""
    layers = layers_of(model)[1]
    with _measuring(model), _only(model, [layers[i] for i in kept]):
        total = sum(_loss(model, batch, calibration) for batch in calibration.batches)
    return total / calibration.tokens


def losses_without_each(
    model: PreTrainedModel,
    kept: Sequence[int],
    calibration: Calibration,
    measured: Callable[[], object] = lambda: None,
) -> dict[int, float]:
    """The loss with the kept layers but one, nats per response token, by the one left out.

    measured: called after each of them on each batch.
    """
    layers = [layers_of(model)[1][i] for i in kept]
    totals = dict.fromkeys(kept, 0.0)
    with _measuring(model):
        for batch in calibration.batches:
            outputs = _outputs(model, layers, batch)
            for place, layer in enumerate(kept):
                # Up to the one left out everything is as with all of them.
                with _after(model, layers, place, outputs):
                    totals[layer] += _loss(model, batch, calibration)
                measured()
    return {layer: total / calibration.tokens for layer, total in totals.items()}


def _loss(model: PreTrainedModel, batch: TokenBatch, calibration: Calibration) -> float:
    """The sum over the batch's response tokens."""
    logits = head(model, batch_states(model, batch)[batch.predictors])[:, : calibration.vocabulary]
    return nn.functional.cross_entropy(logits.float(), batch.targets, reduction="sum").item()


def _outputs(model: PreTrainedModel, layers: Sequence[nn.Module], batch: TokenBatch) -> list[Any]:
    """What each layer gives in a pass through all of them: a tensor or a tuple, by family."""
    outputs: list[Any] = []
    hooks = [layer.register_forward_hook(lambda *call: outputs.append(call[2])) for layer in layers]
    try:
        with _only(model, layers):
            batch_states(model, batch)
    finally:
        for hook in hooks:
            hook.remove()
    return outputs


@contextmanager
def _after(
    model: PreTrainedModel, layers: Sequence[nn.Module], place: int, outputs: Sequence[Any]
) -> Iterator[None]:
    """Leave out the layer at `place`; the one before it gives what it is known to give."""
    later = list(layers[place + 1 :])
    if place == 0:
        with _only(model, later):
            yield
        return
    before = layers[place - 1]
    before.forward = lambda *_, **__: outputs[place - 1]  # shadows the method
    try:
        with _only(model, [before, *later]):
            yield
    finally:
        del before.forward


@contextmanager
def _only(model: PreTrainedModel, layers: Sequence[nn.Module]) -> Iterator[None]:
    """The model runs through these layers alone."""
    name, own = layers_of(model)
    decoder = decoder_of(model)
    setattr(decoder, name, nn.ModuleList(layers))
    try:
        yield
    finally:
        setattr(decoder, name, own)


@contextmanager
def _measuring(model: PreTrainedModel) -> Iterator[None]:
    with torch.no_grad(), evaluating(model), precision(model):
        yield
