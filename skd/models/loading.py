"""Loading models and tokenizers from model folders (`skd.models.folders`).

Knows no tasks, losses or stages.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from skd.engine.positions import decoder_layers, text_config
from skd.errors import UserError, out_of_memory
from skd.models.dropout import drops_out, set_dropout
from skd.models.folders import REFERENCE, read_reference, resolve
from skd.models.pairs import first_of_targets
from skd.models.placement import place_
from skd.models.quantised import FORMATS, quantise_
from skd.results.pair import ModelSize
from skd.settings import Weights

# What is not in a format of few bits; sums of products are taken in it
_DTYPES = {"float32": torch.float32} | dict.fromkeys(("bfloat16", *FORMATS), torch.bfloat16)


def load_model(
    folder: Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | Literal["auto"] = torch.float32,
    dropout: float = 0.0,
    weights: Weights | None = None,
    layers: str | None = None,
) -> PreTrainedModel:
    """A model of either kind from its folder, in evaluation mode.

    Args:
        dropout: what it leaves out while it trains, wherever its family has dropout; what its own
            config says of that is not taken.
        weights: in what it is held; None: in `dtype`.
        layers: where its layers stand, if not on `device` (`skd.models.placement`).

    Raises:
        UserError: it cannot be loaded.
    """
    dtype = dtype if weights is None else _DTYPES[weights]
    where, options = resolve(folder)
    with _reading(where):
        config = AutoConfig.from_pretrained(where, **options)
        kind, text = AutoModelForCausalLM, config
        if config.is_encoder_decoder:
            kind = AutoModelForSeq2SeqLM
            _require_one_vocabulary(config, where)
        else:
            text = config.get_text_config(decoder=True)
        set_dropout(text, dropout)
        if getattr(text, "attn_logit_softcapping", None) is not None:  # fused kernels do without
            options["attn_implementation"] = "eager"
        model, found = kind.from_pretrained(
            where,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            output_loading_info=True,
            **options,
        )
    if missing := sorted(found["missing_keys"]):  # the library makes them up, with a warning
        raise UserError(
            f"{where}: the weights lack {missing[0]!r} and {len(missing) - 1} others that the "
            "config asks for; take the whole folder, or correct its config.json"
        )
    if weights in FORMATS:
        quantise_(model, weights, device if layers is None else "cpu")
    place_(model.eval(), device, layers)
    if config.is_encoder_decoder:
        _force_first_of_targets(model, load_tokenizer(folder))
    if dropout and not drops_out(model):
        raise UserError(
            f"{where}: a {type(model).__name__} has no dropout while it trains; set "
            "optimisation.dropout: 0"
        )
    return model


def _require_one_vocabulary(config: PretrainedConfig, where: str) -> None:
    """Marian's decoder may have rows of its own. Raises `UserError` where it has another number."""
    if getattr(config, "decoder_vocab_size", config.vocab_size) != config.vocab_size:
        raise _two_vocabularies(where)


def _two_vocabularies(where: str) -> UserError:
    return UserError(
        f"{where}: its encoder and its decoder have a vocabulary each, and here a source and its "
        "response are one row of ids of one vocabulary; choose a model whose tokenizer has "
        "separate_vocabs: false"
    )


def is_encoder_decoder(folder: Path) -> bool:
    """Whether the folder's model has an encoder. Raises `UserError` without a config."""
    where, options = resolve(folder)
    with _reading(where):
        return bool(AutoConfig.from_pretrained(where, **options).is_encoder_decoder)


def _force_first_of_targets(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Say where the library looks for it what follows the start token. It is saved with the model.

    Raises `UserError` where that is more than one token.
    """
    first = first_of_targets(tokenizer)
    if len(first) > 1:
        raise UserError(
            f"{type(tokenizer).__name__} puts {len(first)} special tokens before a target; of a "
            "decoder's first tokens one can be forced"
        )
    model.generation_config.forced_bos_token_id = first[0] if first else None


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    where, options = resolve(folder)
    languages = _languages(folder)
    with _reading(where):
        try:
            tokenizer = AutoTokenizer.from_pretrained(where, **options, **languages)
        except KeyError as error:  # M2M-100 looks its codes up at once
            if languages:
                raise _no_such_language(where, error) from error
            raise
        template = folder / "chat_template.jinja"
        if template.exists():  # a pair's shared template stands beside the reference
            tokenizer.chat_template = template.read_text(encoding="utf-8")
        if tokenizer.chat_template is not None:
            turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
            tokenizer.apply_chat_template(turns, tokenize=False)
    if getattr(tokenizer, "separate_vocabs", False):
        raise _two_vocabularies(where)
    if languages:
        _check_languages(tokenizer, where)
    elif getattr(tokenizer, "tgt_lang", "") is None:
        raise UserError(
            f"{where}: a {type(tokenizer).__name__} has codes of languages and is set to no target "
            "language; name source and target in models.languages"
        )
    return tokenizer


def _languages(folder: Path) -> dict[str, str]:
    """As tokenizers name them. A folder that holds its own tokenizer has them there."""
    if not (folder / REFERENCE).exists() or (asked := read_reference(folder).languages) is None:
        return {}
    return {"src_lang": asked.source, "tgt_lang": asked.target}


def _check_languages(tokenizer: PreTrainedTokenizerBase, where: str) -> None:
    around = {*tokenizer("").input_ids, *tokenizer(text_target="").input_ids}
    if not hasattr(tokenizer, "src_lang") or tokenizer.unk_token_id in around:
        raise _no_such_language(where, type(tokenizer).__name__)


def _no_such_language(where: str, what: object) -> UserError:
    return UserError(
        f"{where}: the tokenizer does not know the codes of models.languages ({what}); write them "
        "as its README does, or remove models.languages for a model without codes"
    )


@contextmanager
def _reading(where: str) -> Iterator[None]:
    """Whatever the libraries say of a folder's files is the files' fault, and one `UserError`.

    What they raise has no common kind: a cut tokenizer.json is a bare `Exception`, weights of
    another shape a RuntimeError, a config with texts for numbers a TypeError.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise
        raise _cannot_load(where, error) from error


def _cannot_load(where: str, error: Exception) -> UserError:
    reason = (str(error).strip().splitlines() or ["no reason given"])[0][:300]
    return UserError(
        f"{where}: the model cannot be loaded: {type(error).__name__}: {reason}\n"
        "It must be a Hugging Face folder with safetensors weights, or a Hub id that this "
        "machine may read (gated models need `huggingface-cli login`)."
    )


def measure_model(model: PreTrainedModel) -> ModelSize:
    """The sizes that a report names."""
    config = text_config(model)
    return ModelSize(
        architecture=type(model).__name__,
        parameters=model.num_parameters(),
        layers=decoder_layers(config),
        hidden_size=config.hidden_size,
        output_rows=model.get_output_embeddings().weight.shape[0],
    )
