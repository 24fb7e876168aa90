"""Tokenizers that differ in kind, in pieces or in ids alone, trained on a few lines."""

from __future__ import annotations

import json
from functools import cache

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from skd.models.procedural import train_tokenizer

LINES = (
    "the cat sat on the mat with a hat",
    "Hugging Face: 12 + 30 = 42",
    "কলম আৰু কিতাপ ১২ টকা",
    "naïve café 你好 🙂🙃",
)


@cache
def small() -> PreTrainedTokenizerFast:
    """Byte-level: hardly more than bytes."""
    return train_tokenizer(LINES[:1] * 20, 280)


@cache
def large() -> PreTrainedTokenizerFast:
    """Byte-level: most words of the lines."""
    return train_tokenizer(LINES * 20, 420)


@cache
def unigram() -> PreTrainedTokenizerFast:
    """As SentencePiece: a mark for spaces, the first one left out, bytes for unknown characters."""
    padding, end, unknown = special = ("<pad>", "<end>", "<unk>")
    core = Tokenizer(models.Unigram())
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    core.decoder = decoders.Sequence([*parts, decoders.Strip(" ", 1, 0)])
    trainer = trainers.UnigramTrainer(
        vocab_size=330,
        special_tokens=[*special, *(f"<0x{byte:02X}>" for byte in range(256))],
        unk_token=unknown,
        show_progress=False,
    )
    core.train_from_iterator(LINES[:2] * 20, trainer)
    made = json.loads(core.to_str())
    made["model"]["byte_fallback"] = True
    made["added_tokens"] = made["added_tokens"][: len(special)]  # bytes are plain tokens
    return _wrapped(made, pad_token=padding, eos_token=end, unk_token=unknown)


def permuted(
    tokenizer: PreTrainedTokenizerFast, seed: int = 0
) -> tuple[PreTrainedTokenizerFast, torch.Tensor]:
    """The same tokens under other ids, and the new id of each old one."""
    order = torch.randperm(len(tokenizer), generator=torch.Generator().manual_seed(seed))
    made = json.loads(tokenizer.backend_tokenizer.to_str())
    vocab = made["model"]["vocab"]
    made["model"]["vocab"] = {token: int(order[i]) for token, i in vocab.items()}
    for token in made["added_tokens"]:
        token["id"] = int(order[token["id"]])
    made["added_tokens"].sort(key=lambda token: token["id"])
    other = _wrapped(
        made,
        pad_token=tokenizer.pad_token,
        eos_token=tokenizer.eos_token,
        chat_template=tokenizer.chat_template,
    )
    return other, order


def with_permuted_rows(model: PreTrainedModel, order: torch.Tensor) -> PreTrainedModel:
    """In place: the model, for ids that `permuted` gave. Its embeddings are tied."""
    weight = model.get_output_embeddings().weight
    with torch.no_grad():
        weight[order] = weight.clone()
    return model


def _wrapped(made: dict, **tokens: str) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(made)),
        clean_up_tokenization_spaces=False,
        **tokens,
    )
