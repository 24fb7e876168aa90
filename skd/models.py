"""Loading models and tokenizers, making procedural ones, and checking that a pair fits.

A model folder is either a Hugging Face folder or holds `reference.json`, which names one
elsewhere (a user's folder, a Hub id at a commit). Knows no tasks, losses or stages.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers import models as tokenizer_models
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from skd.errors import UserError
from skd.sections import ProceduralModel
from skd.sequences import Vocabulary

REFERENCE = "reference.json"
_PAD, _END, _USER, _ASSISTANT = "<|pad|>", "<|end|>", "<|user|>", "<|assistant|>"
_MARK = "⁂"  # an answer that no template holds itself
_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role == 'user' %}<|user|>{{ message.content }}"
    "{% else %}<|assistant|>{{ message.content }}<|end|>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


# -------------------------------------------------------------------- loading
def load(
    folder: Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | Literal["auto"] = torch.float32,
    dropout: float = 0.0,
) -> PreTrainedModel:
    """A causal LM from a model folder, in evaluation mode. Raises `UserError` when it cannot."""
    where, options = _resolve(folder)
    if dropout:  # not every architecture takes it, so it is named only when asked for
        options["attention_dropout"] = dropout
    try:
        model = AutoModelForCausalLM.from_pretrained(
            where, dtype=dtype, use_safetensors=True, **options
        )
    except (OSError, ValueError) as error:
        raise _cannot_load(where, error) from error
    return model.to(device).eval()


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


def write_reference(folder: Path, **facts: Any) -> None:
    """Record where a model is instead of copying it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / REFERENCE).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def reference(folder: Path) -> dict[str, Any]:
    """What `write_reference` recorded."""
    facts: dict[str, Any] = json.loads((folder / REFERENCE).read_text(encoding="utf-8"))
    return facts


def _resolve(folder: Path) -> tuple[str, dict[str, Any]]:
    if not (folder / REFERENCE).exists():
        if not (folder / "config.json").exists():
            raise UserError(f"{folder}: no model here (config.json is missing)")
        return str(folder), {"local_files_only": True}
    facts = reference(folder)
    options = {"trust_remote_code": True} if facts["trust_remote_code"] else {}
    if "path" in facts:
        if not Path(facts["path"]).is_dir():
            raise UserError(
                f"{facts['path']}: no such model folder; correct models.*.path in params.yaml"
            )
        return facts["path"], {"local_files_only": True, **options}
    return facts["id"], {"revision": facts["revision"], **options}


def _cannot_load(where: str, error: Exception) -> UserError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return UserError(
        f"{where}: the model cannot be loaded: {reason}\n"
        "It must be a Hugging Face folder with safetensors weights, or a Hub id that this "
        "machine may read (gated models need `huggingface-cli login`)."
    )


# ----------------------------------------------------------------- procedural
def train_tokenizer(texts: Iterable[str], size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE with single digits, the special tokens and a chat template."""
    core = Tokenizer(tokenizer_models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    core.decoder = decoders.ByteLevel()
    marks = [AddedToken(m, normalized=False, special=True) for m in (_PAD, _END, _USER, _ASSISTANT)]
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=marks,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=_PAD,
        eos_token=_END,
        additional_special_tokens=[_USER, _ASSISTANT],
        chat_template=_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def procedural(settings: ProceduralModel, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """A small Llama with random weights, reproducible from `settings.seed`."""
    torch.manual_seed(settings.seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=settings.hidden_size,
            intermediate_size=_swiglu_width(settings.hidden_size),
            num_hidden_layers=settings.layers,
            num_attention_heads=settings.heads,
            max_position_embeddings=1024,
            # 0.02 suits thousands of units: at a hundred it starves attention for many steps.
            initializer_range=0.05,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
    )


def _swiglu_width(hidden_size: int) -> int:
    """8/3 of the hidden size, Llama's ratio, rounded up to a multiple of 16."""
    return -(-8 * hidden_size // 48) * 16


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


# ----------------------------------------------------------------------- pair
def check_pair(
    teacher: PreTrainedTokenizerBase, student: PreTrainedTokenizerBase, template_mismatch: str
) -> None:
    """Refuse a pair whose ids differ, before any compute. Raises `UserError` with the first one."""
    ids = teacher.get_vocab()
    if ids != (others := student.get_vocab()):
        by_id, other_by_id = _inverse(ids), _inverse(others)
        first = next(i for i in sorted(by_id | other_by_id) if by_id.get(i) != other_by_id.get(i))
        raise UserError(
            f"teacher and student have different tokenizers: id {first} is "
            f"{by_id.get(first)!r} for the teacher and {other_by_id.get(first)!r} for the "
            "student; choose a pair that shares its tokenizer"
        )
    for name in ("eos_token_id", "pad_token_id"):
        if getattr(teacher, name) != getattr(student, name):
            raise UserError(
                f"teacher and student differ in {name}: {getattr(teacher, name)} and "
                f"{getattr(student, name)}; make the tokenizers agree"
            )
    if teacher.chat_template != student.chat_template and template_mismatch == "error":
        raise UserError(
            "teacher and student have different chat templates, so the student would answer "
            "prompts it has not seen; set models.template_mismatch: teacher to use the teacher's"
        )


def vocabulary(tokenizer: PreTrainedTokenizerBase, *models: PreTrainedModel) -> Vocabulary:
    """The ids that all these models share; rows of a padded embedding are left out."""
    size = len(tokenizer)
    for model in models:
        if (rows := model.get_output_embeddings().weight.shape[0]) < size:
            raise UserError(f"a model has {rows} output rows for a tokenizer of {size} tokens")
    eos: set[int | None] = {end_of_turn(tokenizer), tokenizer.eos_token_id}
    for model in models:
        configured = getattr(model.generation_config, "eos_token_id", None)
        eos |= set(configured if isinstance(configured, list) else [configured])
    known = sorted(i for i in eos if i is not None)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else known[0]
    forbidden = sorted(i for i in {*tokenizer.all_special_ids, pad} - set(known) if i < size)
    return Vocabulary(size=size, eos=tuple(known), pad=pad, forbidden=tuple(forbidden))


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id with which the chat template ends an answer; the tokenizer's eos without one.

    Gemma's turns end with `<end_of_turn>`, its `eos_token` is another.
    """
    if tokenizer.chat_template is not None:
        turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": _MARK}]
        text = tokenizer.apply_chat_template(turns, tokenize=False)
        tail = tokenizer(text.rpartition(_MARK)[2], add_special_tokens=False).input_ids
        if tail and tail[0] in tokenizer.all_special_ids:
            return int(tail[0])
    if tokenizer.eos_token_id is None:
        raise UserError("the tokenizer has no end-of-sequence token")
    return int(tokenizer.eos_token_id)


def describe(model: PreTrainedModel) -> dict[str, Any]:
    """Facts for the report."""
    return {
        "architecture": type(model).__name__,
        "parameters": model.num_parameters(),
        "layers": model.config.num_hidden_layers,
        "hidden_size": model.config.hidden_size,
        "output_rows": model.get_output_embeddings().weight.shape[0],
    }


def _inverse(ids: dict[str, int]) -> dict[int, str]:
    return {i: token for token, i in ids.items()}
