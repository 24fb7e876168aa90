"""The sizes of a model, from its configuration alone: no weight is read and none is made.

Parameters are counted on PyTorch's meta device, whose tensors have shapes and no memory. Knows no
experiment, no method and no device, and refuses to know where a configuration is found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    PretrainedConfig,
    PreTrainedModel,
)

from skd.engine.positions import decoder_layers
from skd.settings import Weights
from skd.training.settings import Adapter

# Activation functions that keep more or less than their input: a fused one keeps that, one that is
# written out each of its steps, and what follows keeps the result
_KEPT_BY_ACTIVATION = {"relu": 0, "gelu_new": 4}


@dataclass(frozen=True)
class Sizes:
    """What memory and time depend on. Widths are numbers per token.

    Of an encoder–decoder: layers and widths are its decoder's, the parameters those of both.
    """

    name: str
    # Where the configuration was read
    origin: str
    parameters: int
    layers: int
    hidden: int
    # Of all attention heads together, and of the key/value heads together
    queries: int
    keys: int
    heads: int
    # Of the feed-forward layer, over the experts that a token goes through
    feed_forward: int
    # How many these are; 0: there are no experts
    experts: int
    # Matrices into the feed-forward layer: 2 where a gate multiplies, else 1
    gates: int
    # Tensors that the activation function between them keeps for its backward pass
    activation: int
    # Norms of a layer that are as wide as its states, and tensors that each keeps: one with a bias
    # is taken at once, a root mean square in steps
    norms: int
    norm: int
    # Rows of the output embedding
    vocabulary: int
    # Whether input and output embedding are one tensor
    tied: bool
    # Whether attention keeps its matrix of scores (eager attention)
    scores: bool = False
    # Linear layers but the output embedding, by name over all layers: numbers of their weights, and
    # rows and columns together, as many as an adapter of rank 1 has
    linear: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    # Of a teacher: in what it is held, and where its layers stand; None: as the device has it
    weights: Weights | None = None
    layers_at: str | None = None
    # Whether it reads other ids than the student that learns from it
    own_ids: bool = False
    # An encoder–decoder's encoder, without the embeddings; None: a decoder
    encoder: Sizes | None = None

    @property
    def embedding(self) -> int:
        """Numbers of the output embedding."""
        return self.vocabulary * self.hidden

    @property
    def in_linear(self) -> int:
        """Numbers that formats of few bits hold."""
        return sum(count for count, _ in self.linear.values())

    @property
    def in_layers(self) -> int:
        """Numbers of the layers alone."""
        return self.parameters - self.embedding * (1 if self.tied else 2)

    def trainable(self, adapter: Adapter | None) -> int:
        """Numbers that are trained. An adapter on the output embedding counts with it."""
        if adapter is None:
            return self.parameters
        sides = {name: both for name, (_, both) in self.linear.items()}
        targets = sides if adapter.targets is None else adapter.targets
        known = sides | {"lm_head": self.vocabulary + self.hidden}
        return adapter.rank * sum(known.get(name.rpartition(".")[2], 0) for name in targets)


def measured(
    config: PretrainedConfig, name: str, origin: str, trust_remote_code: bool = False
) -> Sizes:
    """The sizes that a configuration stands for. Families name some of them in their own way."""
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    with torch.device("meta"):
        model: PreTrainedModel = kind.from_config(config, trust_remote_code=trust_remote_code)
    head = model.get_output_embeddings().weight
    own: dict[str, Any] = {
        "name": name,
        "origin": origin,
        "parameters": model.num_parameters(),
        "vocabulary": head.shape[0],
        "tied": head is model.get_input_embeddings().weight,
        "scores": model.config._attn_implementation == "eager",
        "linear": _linear(model),
    }
    if not config.is_encoder_decoder:
        text = config.get_text_config()
        return Sizes(**own, **_stack(model, text, text.num_hidden_layers, "decoder"))
    read = _stack(model.get_encoder(), config, config.num_hidden_layers, "encoder")
    embedding = model.get_input_embeddings().weight
    inside = model.get_encoder().num_parameters() - embedding.numel()
    encoder = Sizes(**own | {"parameters": inside, "vocabulary": 0, "linear": {}}, **read)
    layers = decoder_layers(config)
    return Sizes(**own, **_stack(model.get_decoder(), config, layers, "decoder"), encoder=encoder)


def _linear(model: PreTrainedModel) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    for path, layer in model.named_modules():
        if isinstance(layer, torch.nn.Linear) and layer is not model.get_output_embeddings():
            name = path.rpartition(".")[2]
            count, sides = found.get(name, (0, 0))
            found[name] = count + layer.weight.numel(), sides + sum(layer.weight.shape)
    return found


def _stack(stack: nn.Module, config: PretrainedConfig, layers: int, half: str) -> dict[str, Any]:
    """Depth and widths of a model's layers. half: whose fields of an encoder–decoder's config."""
    heads = getattr(config, f"{half}_attention_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    key_heads = getattr(config, "num_key_value_heads", None) or heads
    own = dict(stack.named_parameters())
    norms = _norms(own, config.hidden_size)
    return {
        "layers": layers,
        "hidden": config.hidden_size,
        "queries": heads * width,
        "keys": key_heads * width,
        "heads": heads,
        "feed_forward": _feed_forward(config, half),
        "experts": _experts(config),
        "gates": 1 + any(map(_gate, own)),
        "activation": _KEPT_BY_ACTIVATION.get(_activation(config), 1),
        "norms": len(norms) // layers,
        "norm": 1 if f"{norms[0].removesuffix('weight')}bias" in own else 2,
    }


def _feed_forward(config: PretrainedConfig, half: str) -> int:
    """Of the experts that a token goes through, where there are experts, and of one for all."""
    shared = getattr(config, "shared_expert_intermediate_size", None) or 0
    names = (
        "moe_intermediate_size",
        "intermediate_size",
        "n_inner",
        "ffn_dim",
        "ffn_hidden_size",
        "d_ff",
    )
    named = (getattr(config, name, None) for name in (f"{half}_ffn_dim", *names))
    return shared + max(_experts(config), 1) * next(filter(None, named), 4 * config.hidden_size)


def _experts(config: PretrainedConfig) -> int:
    return getattr(config, "num_experts_per_tok", None) or 0


def _gate(name: str) -> bool:
    """T5 numbers its matrices."""
    return "gate" in name or "wi_1" in name


def _activation(config: PretrainedConfig) -> str:
    """The function's name."""
    names = ("dense_act_fn", "activation_function", "hidden_activation", "hidden_act")
    return next(filter(None, (getattr(config, name, None) for name in names)), "")


def _norms(own: Mapping[str, Tensor], hidden: int) -> list[str]:
    """The layers' weights of one dimension, as long as a state."""
    return [
        name
        for name, weight in own.items()
        if name.endswith(".weight")
        and any(part.isdigit() for part in name.split("."))
        and weight.shape == (hidden,)
    ]
