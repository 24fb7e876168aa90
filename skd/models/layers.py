"""A student made of some of its teacher's layers. Knows no files and trains nothing."""

from __future__ import annotations

import json
from typing import Any

import torch
from transformers import PreTrainedModel

from skd.engine.positions import text_config
from skd.engine.states import decoder_of, evaluating
from skd.errors import UserError, out_of_memory

# What a layer calls its own number, by which it finds its cache
_OWN_NUMBERS = ("layer_idx", "layer_id", "layer_index", "layer_number")
# Fields of configs that list layers by number
_LISTED = ("mlp_only_layers", "moe_layers", "attn_layer_indices", "hybrid_layer_ids")
# Fields of configs that count the first layers, which are of another kind than the rest
_FIRST = ("first_k_dense_replace", "max_window_layers")
# Lists of configs that are of ids or classes, however long they are
_NO_LAYERS = ("token", "architectures", "label")
_PROBE = 16  # tokens that the reloaded model is compared on
_TOLERANCE = 1e-3  # of the largest logit


def keep_layers(model: PreTrainedModel, keep: list[int]) -> PreTrainedModel:
    """Drop all but the listed decoder layers, in place.

    Raises `UserError` on a bad list, and for a model that would be another one after reloading.
    """
    decoder, config = decoder_of(model), text_config(model)
    name, layers = layers_of(model)
    if not keep or sorted(set(keep)) != keep or keep[0] < 0 or keep[-1] >= len(layers):
        raise UserError(
            f"models.student.keep: {keep} must be ascending layer numbers below {len(layers)}"
        )
    setattr(decoder, name, torch.nn.ModuleList([layers[i] for i in keep]))
    for place, layer in enumerate(getattr(decoder, name)):
        for part in layer.modules():
            for number in _OWN_NUMBERS:
                if isinstance(getattr(part, number, None), int):
                    setattr(part, number, place)
    for field, value in vars(config).items():
        setattr(config, field, _remapped(field, value, keep, len(layers)))
    config.num_hidden_layers = len(keep)
    if reason := _after_reloading(model):
        raise UserError(
            f"models.student.keep: a {type(model).__name__} of the layers {keep} is another model "
            f"once it is saved and loaded ({reason}); keep other layers, or take a student of "
            "kind folder or hub"
        )
    return model


def layers_of(model: PreTrainedModel) -> tuple[str, torch.nn.ModuleList]:
    """The list of a decoder's layers and its name there: `layers`, `h` or `blocks`.

    Raises `UserError` for a model whose layers cannot be found.
    """
    decoder, count = decoder_of(model), text_config(model).num_hidden_layers
    found = [
        (name, part)
        for name, part in decoder.named_children()
        if isinstance(part, torch.nn.ModuleList) and len(part) == count
    ]
    if len(found) != 1:
        raise UserError(
            f"models.student: {type(decoder).__name__} has {len(found)} lists of {count} layers, "
            "so that none can be cut; take a student of kind folder or hub"
        )
    return found[0]


def _remapped(field: str, value: Any, keep: list[int], count: int) -> Any:
    """A field of a config for the kept layers alone."""
    if field in _FIRST and isinstance(value, int):
        return sum(layer < value for layer in keep)
    if not isinstance(value, list) or any(word in field for word in _NO_LAYERS):
        return value
    if field == "attention_types":  # GPT-Neo repeats patterns: [[["global", "local"], 12]]
        kinds = [kind for pattern, times in value for kind in pattern * times]
        return [[[kinds[layer]], 1] for layer in keep]
    if field in _LISTED:
        return [place for place, layer in enumerate(keep) if layer in value]
    return [value[layer] for layer in keep] if len(value) == count else value


@torch.no_grad()
def _after_reloading(model: PreTrainedModel) -> str | None:
    """What is not the same in a model made anew from this one's config and weights."""
    saved = json.loads(model.config.to_json_string())
    tokens = torch.arange(_PROBE, device=model.device)[None] % text_config(model).vocab_size
    try:
        again = type(model).from_pretrained(
            None,
            config=type(model.config).from_dict(saved),
            state_dict=model.state_dict(),
            dtype=model.dtype,
            attn_implementation=model.config._attn_implementation,
        )
        with evaluating(model):
            wanted = model(input_ids=tokens, use_cache=False).logits
        made = again.to(model.device).eval()(input_ids=tokens, use_cache=False).logits
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        if out_of_memory(error):
            raise
        return f"{type(error).__name__}: {error}"
    if (made - wanted).abs().max() <= _TOLERANCE * wanted.abs().max():
        return None
    return "its logits differ"
