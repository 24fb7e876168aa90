"""Loading models and tokenizers from model folders.

A model folder is either a Hugging Face folder or holds `reference.json`, which names one
elsewhere: a user's folder, or a Hub id at a commit. Knows no tasks, losses or stages.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from pydantic.dataclasses import dataclass
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from skd.engine.positions import text_config
from skd.errors import UserError
from skd.models.dropout import drops_out, set_dropout
from skd.results.files import read_result, write_result
from skd.results.pair import ModelSize
from skd.settings import STRICT

REFERENCE = "reference.json"


def load_model(
    folder: Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | Literal["auto"] = torch.float32,
    dropout: float = 0.0,
) -> PreTrainedModel:
    """A causal LM from a model folder, in evaluation mode. Raises `UserError` when it cannot.

    dropout: what it leaves out while it trains, wherever its family has dropout; what its own
    config says of that is not taken.
    """
    where, options = _resolve(folder)
    try:
        config = AutoConfig.from_pretrained(where, **options)
        text = config.get_text_config(decoder=True)
        set_dropout(text, dropout)
        if getattr(text, "attn_logit_softcapping", None) is not None:  # fused kernels do without
            options["attn_implementation"] = "eager"
        model = AutoModelForCausalLM.from_pretrained(
            where, config=config, dtype=dtype, use_safetensors=True, **options
        )
    except (OSError, ValueError) as error:
        raise _cannot_load(where, error) from error
    model = model.to(device).eval()
    if dropout and not drops_out(model):
        raise UserError(
            f"{where}: a {type(model).__name__} has no dropout while it trains; set "
            "optimisation.dropout: 0"
        )
    return model


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    where, options = _resolve(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(where, **options)
    except (OSError, ValueError) as error:
        raise _cannot_load(where, error) from error
    template = folder / "chat_template.jinja"
    if template.exists():  # a pair's shared template stands beside the reference
        tokenizer.chat_template = template.read_text(encoding="utf-8")
    return tokenizer


@dataclass(frozen=True, config=STRICT)
class ModelReference:
    """reference.json: where a model is, a folder or an id on the Hub, instead of a copy of it."""

    path: str | None = None
    # Of the folder's contents: a path says nothing of what is there
    sha256: str | None = None
    id: str | None = None
    # A commit of the Hub
    revision: str | None = None
    trust_remote_code: bool = False


def write_reference(folder: Path, reference: ModelReference) -> None:
    """Make a model folder that names a model elsewhere."""
    write_result(folder / REFERENCE, reference)


def read_reference(folder: Path) -> ModelReference:
    """What `write_reference` recorded."""
    return read_result(folder / REFERENCE, ModelReference, "base")


def _resolve(folder: Path) -> tuple[str, dict[str, Any]]:
    if not (folder / REFERENCE).exists():
        if not (folder / "config.json").exists():
            raise UserError(f"{folder}: no model here (config.json is missing)")
        return str(folder), {"local_files_only": True}
    reference = read_reference(folder)
    options = {"trust_remote_code": True} if reference.trust_remote_code else {}
    if reference.path is None:
        return str(reference.id), {"revision": reference.revision, **options}
    if not Path(reference.path).is_dir():
        raise UserError(
            f"{reference.path}: no such model folder; correct models.*.path in params.yaml"
        )
    return reference.path, {"local_files_only": True, **options}


def _cannot_load(where: str, error: Exception) -> UserError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return UserError(
        f"{where}: the model cannot be loaded: {reason}\n"
        "It must be a Hugging Face folder with safetensors weights, or a Hub id that this "
        "machine may read (gated models need `huggingface-cli login`)."
    )


def measure_model(model: PreTrainedModel) -> ModelSize:
    """The sizes that a report names."""
    config = text_config(model)
    return ModelSize(
        architecture=type(model).__name__,
        parameters=model.num_parameters(),
        layers=config.num_hidden_layers,
        hidden_size=config.hidden_size,
        output_rows=model.get_output_embeddings().weight.shape[0],
    )
