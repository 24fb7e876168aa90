"""Low-rank adapters (LoRA, arXiv 2106.09685) in a model's linear layers, through `peft`.

They stand inside the model, which stays what it was to whoever samples from it or trains it; its
own weights are frozen. `merge_` makes a plain model of both. Knows no files but an adapter's own,
and imports `peft` only where there is an adapter.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from skd.engine.seeding import derive
from skd.errors import UserError
from skd.models.quantised import dequantise_
from skd.training.settings import Adapter

ADAPTER = "adapter"  # its folder, beside the weights that it is merged into
_NAME = "default"  # peft's own name of a single adapter


def add_adapter_(model: PreTrainedModel, settings: Adapter, *key: object) -> None:
    """Freeze the model and put an adapter in, in place; it changes nothing before it is trained.

    Args:
        key: names its random numbers. It is in fp32 at least, whatever the model is held in.

    Raises:
        UserError: a target is no linear layer of the model, or is its input embedding too.
    """
    from peft import LoraConfig, inject_adapter_in_model

    targets = settings.targets or sorted(_names(_inner_layers(model)))
    _check_targets(model, targets)
    config = LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules=targets)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # It reads off each layer whether its weight lies transposed, as GPT-2's do, and says so.
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set")
        torch.manual_seed(derive(*key, ADAPTER))
        inject_adapter_in_model(config, model)
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype in (torch.bfloat16, torch.float16):
            parameter.data = parameter.data.float()


def has_adapter(model: PreTrainedModel) -> bool:
    return hasattr(model, "peft_config")


def save_adapter(model: PreTrainedModel, folder: Path) -> None:
    """Write the adapter as `PeftModel.from_pretrained` reads it, for the model as it was before."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    weights = get_peft_model_state_dict(model, adapter_name=_NAME, save_embedding_layers=False)
    weights = {f"base_model.model.{name}": value.contiguous() for name, value in weights.items()}
    config = model.peft_config[_NAME]
    config.inference_mode = True
    config.save_pretrained(folder)
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})


@torch.no_grad()
def merge_(model: PreTrainedModel) -> None:
    """Add the adapter to the weights and make the model plain, in place.

    Weights in 8 or 4 bits are first made what their codes stand for: those the adapter was trained
    beside, not those that they were made of.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    dequantise_(model)
    for path, layer in list(model.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            layer.merge()
            model.set_submodule(path, layer.get_base_layer())
    del model.peft_config


def _check_targets(model: PreTrainedModel, targets: list[str]) -> None:
    layers = _linear(model)
    for target in targets:
        found = [path for path in layers if f".{path}".endswith(f".{target}")]
        if not found:
            raise UserError(
                f"adapter.targets names {target!r}, which no linear layer of "
                f"{type(model).__name__} is called; choose of {', '.join(sorted(_names(layers)))}"
            )
        embedding = model.get_input_embeddings().weight
        if any(layers[path].weight is embedding for path in found):
            raise UserError(
                f"adapter.targets names {target!r}, which is the input embedding of this "
                f"{type(model).__name__} as well: merged, an adapter there would change both; "
                "leave it out"
            )


def _linear(model: PreTrainedModel) -> dict[str, nn.Module]:
    return {p: part for p, part in model.named_modules() if isinstance(part, (nn.Linear, Conv1D))}


def _inner_layers(model: PreTrainedModel) -> dict[str, nn.Module]:
    """All but the output embedding."""
    head = model.get_output_embeddings()
    return {path: part for path, part in _linear(model).items() if part is not head}


def _names(layers: Mapping[str, nn.Module]) -> set[str]:
    return {path.rpartition(".")[2] for path in layers}
