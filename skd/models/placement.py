"""A model whose layers stand elsewhere than its embeddings: on another device, or in the host.

Tokens, states and logits stay where they are for every other module; only hidden states cross.
Knows no settings and trains nothing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from skd.engine.states import decoder_of
from skd.errors import UserError
from skd.models.layers import layers_of

OFFLOAD = "offload"


def place_(model: PreTrainedModel, device: torch.device | str, layers: str | None) -> None:
    """Move a model to a device, in place, but for its layers where `layers` says so.

    Args:
        layers: a device that they stand and compute on; `offload`: the host's memory, from which
            each is copied to `device` while it computes; None: `device`.

    Raises:
        UserError: the layers of an encoder–decoder are asked to stand elsewhere.
    """
    if layers is None:
        model.to(device)
        return
    if model.config.is_encoder_decoder:
        raise UserError(
            f"runtime.teacher_device: {layers} is for decoders; a {type(model).__name__} also has "
            "an encoder: remove it, or hold the teacher in 8 or 4 bits (models.teacher_weights)"
        )
    decoder, (name, parts) = decoder_of(model), layers_of(model)
    setattr(decoder, name, nn.ModuleList())
    model.to(device)
    setattr(decoder, name, parts)
    if layers == OFFLOAD:
        for part in parts:
            _lend(part.to("cpu"), torch.device(device))
        return
    home = torch.device(layers)
    for part in parts:
        part.to(home).register_forward_pre_hook(
            lambda _, given, named: _to((given, named), home), with_kwargs=True
        )
    parts[-1].register_forward_hook(lambda _, __, result: _to(result, torch.device(device)))


def _lend(layer: nn.Module, device: torch.device) -> None:
    """The layer's tensors are on the device while it computes, and in the host's memory else."""
    tensors = [*layer.parameters(), *layer.buffers()]
    for tensor in tensors:
        if device.type == "cuda":  # pinned memory is copied four times as fast
            tensor.data = tensor.data.pin_memory()
    kept = [tensor.data for tensor in tensors]

    def fetch(*_: object) -> None:
        for tensor, own in zip(tensors, kept, strict=True):
            tensor.data = own.to(device, non_blocking=True)

    def put_back(*_: object) -> None:
        for tensor, own in zip(tensors, kept, strict=True):
            tensor.data = own

    layer.register_forward_pre_hook(fetch)
    layer.register_forward_hook(put_back, always_call=True)


def _to(value: Any, device: torch.device) -> Any:
    """The same value with its tensors on the device; caches are left where they are."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, tuple):
        return tuple(_to(part, device) for part in value)
    if isinstance(value, dict):
        return {name: _to(part, device) for name, part in value.items()}
    return value
