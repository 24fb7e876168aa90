"""Dropout of a causal LM by its family's own names. Knows no files and trains nothing."""

from __future__ import annotations

import re

import torch
from transformers import PretrainedConfig, PreTrainedModel

from skd.engine.positions import text_config
from skd.engine.states import evaluating

# attention_dropout, hidden_dropout, attn_pdrop, dropout_rate, hidden_dropout_prob, layerdrop, …
_DROPOUT = re.compile(r"(dropout|pdrop|layerdrop)(_prob|_rate)?$")
# Of heads that no language model has
_ELSEWHERE = ("classifier", "summary")
_PROBE = 128  # tokens: of their attention even one in a thousand leaves something out


def set_dropout(config: PretrainedConfig, dropout: float) -> None:
    """Every dropout of a config at this probability; whole layers are never left out."""
    for name, value in vars(config).items():
        named = _DROPOUT.search(name) and not any(head in name for head in _ELSEWHERE)
        if named and isinstance(value, (int, float)) and not isinstance(value, bool):
            setattr(config, name, 0.0 if "layerdrop" in name else dropout)


@torch.no_grad()
def drops_out(model: PreTrainedModel) -> bool:
    """Whether the model in training differs from the same model in use.

    The library's Falcon reads its config's attention dropout and does not apply it, for one.
    """
    config = text_config(model)
    size = min(_PROBE, getattr(config, "max_position_embeddings", _PROBE))
    tokens = torch.arange(size, device=model.device)[None] % config.vocab_size
    asked = {"input_ids": tokens}
    if model.config.is_encoder_decoder:
        asked["decoder_input_ids"] = tokens
    with evaluating(model):
        still = model(**asked, use_cache=False).logits
        devices = [model.device] if model.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(0)
            model.train()
            return not torch.equal(model(**asked, use_cache=False).logits, still)
