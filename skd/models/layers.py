"""A student made of some of its teacher's layers. Knows no files and trains nothing."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from skd.errors import UserError


def keep_layers(model: PreTrainedModel, keep: list[int]) -> PreTrainedModel:
    """Drop all but the listed decoder layers, in place. Raises `UserError` on a bad list."""
    layers = model.get_decoder().layers
    if not keep or sorted(set(keep)) != keep or keep[-1] >= len(layers):
        raise UserError(
            f"models.student.keep: {keep} must be ascending layer numbers below {len(layers)}"
        )
    kept = torch.nn.ModuleList([layers[i] for i in keep])
    for place, layer in enumerate(keep):
        layers[layer].self_attn.layer_idx = place
    model.get_decoder().layers = kept
    model.config.num_hidden_layers = len(keep)
    kinds = getattr(model.config, "layer_types", None)
    if kinds:
        model.config.layer_types = [kinds[i] for i in keep]
    return model
