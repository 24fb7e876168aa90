"""Small models that are made here: a tokenizer trained on the data, a Llama with random weights.

Knows no tasks and trains no model.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers import models as tokenizer_models
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from skd.models.settings import ProceduralModel

_PAD, _END, _USER, _ASSISTANT = "<|pad|>", "<|end|>", "<|user|>", "<|assistant|>"
_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role == 'user' %}<|user|>{{ message.content }}"
    "{% else %}<|assistant|>{{ message.content }}<|end|>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


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


def procedural_model(
    settings: ProceduralModel, tokenizer: PreTrainedTokenizerBase
) -> PreTrainedModel:
    """A small Llama with random weights, reproducible from `settings.seed`."""
    torch.manual_seed(settings.seed)
    config = procedural_config(settings, len(tokenizer))
    config.pad_token_id, config.eos_token_id = tokenizer.pad_token_id, tokenizer.eos_token_id
    return LlamaForCausalLM(config)


def procedural_config(settings: ProceduralModel, vocabulary: int) -> LlamaConfig:
    """What the model is built from, but for the ids that its tokenizer gives it.

    vocabulary: tokens of the tokenizer.
    """
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=settings.hidden_size,
        intermediate_size=_swiglu_width(settings.hidden_size),
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        max_position_embeddings=1024,
        # 0.02 suits thousands of units: at a hundred it starves attention for many steps.
        initializer_range=0.05,
        tie_word_embeddings=True,
        pad_token_id=None,
        eos_token_id=None,
        bos_token_id=None,
    )


def _swiglu_width(hidden_size: int) -> int:
    """8/3 of the hidden size, Llama's ratio, rounded up to a multiple of 16."""
    return -(-8 * hidden_size // 48) * 16
