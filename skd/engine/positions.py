"""What a decoder's config says of its positions: where attention changes, and where they end.

A limit is a number of positions beyond which a model could not be sampled exactly, with its
reason. Knows configs; runs no model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from transformers import PretrainedConfig, PreTrainedModel

from skd.errors import UserError


@dataclass(frozen=True)
class Limit:
    """A model is itself at this many positions at most, prompt and response together."""

    positions: int
    reason: str
    # Whether a pass over whole sequences, without a cache, ends there too
    without_cache: bool = True


def text_config(model: PreTrainedModel) -> PretrainedConfig:
    """The decoder's own config: a model that also reads images has one for each kind of input."""
    config: PretrainedConfig = model.config
    return config if config.is_encoder_decoder else config.get_text_config(decoder=True)


def decoder_layers(config: PretrainedConfig) -> int:
    """Of what runs for each token: an encoder–decoder's config counts its encoder's apart."""
    if config.is_encoder_decoder:
        for name in ("num_decoder_layers", "decoder_layers"):
            if hasattr(config, name):
                return int(getattr(config, name))
    return int(config.num_hidden_layers)


def attention_breaks(model: PreTrainedModel) -> list[int]:
    """Numbers of positions after which some layer no longer reads all that stands before."""
    fields = vars(text_config(model)).items()
    return sorted({v for name, v in fields if name.endswith(_BREAKS) and type(v) is int and v > 0})


# How configs name windows and chunks
_BREAKS = ("window", "window_size", "chunk_size", "local_attention")


def require_positions(model: PreTrainedModel, positions: int, cached: bool) -> None:
    """Raise `UserError` for a model that is not itself at so many positions."""
    for limit in limits(model):
        if positions > limit.positions and (cached or limit.without_cache):
            raise UserError(
                f"{type(model).__name__} cannot be used exactly at {positions} positions (prompt "
                f"and response together): {limit.reason}; docs/own-models.md says more"
            )


def reach(prompt: int, response: int, start: int) -> int:
    """The positions that rows of such lengths need.

    start: those ids of a prompt with which an encoder–decoder's decoder begins, whose positions are
    counted apart from the source's; 0 for a decoder.
    """
    return max(prompt - start, start + response) if start else prompt + response


def require_budget(model: PreTrainedModel, prompt: int, response: int, start: int = 0) -> None:
    """Raise `UserError` unless prompts and responses of these lengths fit the model's positions.

    start: as `reach` has it.
    """
    end = getattr(text_config(model), "max_position_embeddings", None)
    needed = reach(prompt, response, start)
    if end is not None and needed > end:
        raise UserError(
            f"{type(model).__name__} was made for {end} positions: max_prompt_tokens={prompt} and "
            f"max_new_tokens={response} need {needed}; lower them under `budget` in params.yaml"
        )
    require_positions(model, needed, cached=True)


def limits(model: PreTrainedModel) -> list[Limit]:
    """All that this model has."""
    found = (limit(model, text_config(model)) for limit in _LIMITS)
    return [limit for limit in found if limit is not None]


def _soft_capping(_: PreTrainedModel, config: Any) -> Limit | None:
    """Gemma 2 caps its attention scores; the library's fused kernels do not take part in that."""
    attention = config._attn_implementation
    if getattr(config, "attn_logit_softcapping", None) is None or attention != "sdpa":
        return None
    return Limit(
        0,
        f"its {attention} attention leaves out the soft-capping of the scores; load it with "
        "attn_implementation='eager'",
    )


def _changing_frequencies(_: PreTrainedModel, config: Any) -> Limit | None:
    """Dynamic NTK and LongRoPE turn all positions by the largest one of a batch."""
    scaling = getattr(config, "rope_scaling", None) or {}
    kind = scaling.get("rope_type") or scaling.get("type") or ""
    if "dynamic" not in kind and kind != "longrope":
        return None
    end = config.max_position_embeddings
    if kind == "longrope":
        end = getattr(config, "original_max_position_embeddings", None) or end
    return Limit(
        end,
        f"its rotary positions ({kind}) change for a whole batch once one row is longer than "
        f"{end}, those of cached keys included, so that a row would depend on its neighbours",
    )


def _table(model: PreTrainedModel, config: Any) -> Limit | None:
    """Learned and precomputed positions are rows of a table."""
    end = getattr(config, "max_position_embeddings", None)
    if end is None or getattr(config, "alibi", False) or _rotates(model):
        return None
    return Limit(end, f"it has a table of {end} positions")


def _local_layers(_: PreTrainedModel, config: Any) -> Limit | None:
    """GPT-Neo counts its window back from the last slot of a batch, not from a row's own."""
    if "local" not in (getattr(config, "attention_layers", None) or ()):
        return None
    return Limit(
        config.window_size,
        f"its local layers count their window of {config.window_size} from a batch's longest row, "
        "so that shorter rows would lose what they read",
        without_cache=False,
    )


def _position_temperature(_: PreTrainedModel, config: Any) -> Limit | None:
    """Llama 4 scales queries of its layers without rotary positions, by one position for all."""
    if not getattr(config, "attn_temperature_tuning", False) or all(config.no_rope_layers):
        return None
    return Limit(
        config.floor_scale - 1,
        f"from position {config.floor_scale} on it scales attention by one position for all rows",
        without_cache=False,
    )


_LIMITS: tuple[Callable[[PreTrainedModel, Any], Limit | None], ...] = (
    _soft_capping,
    _changing_frequencies,
    _table,
    _local_layers,
    _position_temperature,
)


def _rotates(model: PreTrainedModel) -> bool:
    """Whether positions are turned by frequencies, which go on without end."""
    if model not in _ROTATES:
        _ROTATES[model] = any(name.endswith("inv_freq") for name, _ in model.named_buffers())
    return _ROTATES[model]


_ROTATES: WeakKeyDictionary[PreTrainedModel, bool] = WeakKeyDictionary()
