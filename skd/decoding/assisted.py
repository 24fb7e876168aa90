"""Assisted generation as transformers ships it: the peer of our own speculative decoding.

`generate` of the teacher with the student as its assistant, one prompt at a time. Knows ids only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    PreTrainedModel,
    SuppressTokensLogitsProcessor,
)

from skd.engine.sequences import Vocabulary
from skd.engine.settings import Sampling
from skd.engine.sources import decoder_start
from skd.engine.states import evaluating


class AssistError(Exception):
    """The library refuses this pair; the message is its own."""


@torch.no_grad()
def assist(
    draft: PreTrainedModel,
    teacher: PreTrainedModel,
    prompt: Sequence[int],
    vocabulary: Vocabulary,
    sampling: Sampling,
    max_new_tokens: int,
) -> list[int]:
    """One response of `teacher`, drawn with torch's global generator unless greedy.

    Raises `AssistError` where it cannot: embeddings with different numbers of rows are two
    tokenizers to it, between which it would translate by text; some caches cannot be cut back.
    """
    start = decoder_start(teacher)
    read = torch.tensor([list(prompt)], device=teacher.device)
    written = {}  # what the response is written behind, where that is not what was read
    if start:
        read, written["decoder_input_ids"] = read.tensor_split([-len(start)], dim=1)
    with evaluating(draft, teacher), _own_settings_aside(draft, teacher):
        try:
            made = teacher.generate(
                read,
                attention_mask=torch.ones_like(read),
                generation_config=_settings(vocabulary, sampling, max_new_tokens, start),
                **written,
                logits_processor=_only_allowed(teacher, vocabulary),
                assistant_model=draft,
            )
        except (IndexError, ValueError) as error:  # IndexError: a T5 of unlike halves
            raise AssistError(str(error)) from error
    response: list[int] = made[0, (len(start) or len(prompt)) :].tolist()
    return response


def _settings(
    vocabulary: Vocabulary, sampling: Sampling, max_new_tokens: int, start: tuple[int, ...]
) -> GenerationConfig:
    shape = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
    greedy = sampling.temperature == 0.0
    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=not greedy,
        eos_token_id=list(vocabulary.eos),
        pad_token_id=vocabulary.pad,
        decoder_start_token_id=start[0] if start else None,
        **({} if greedy else shape),
    )


def _only_allowed(teacher: PreTrainedModel, vocabulary: Vocabulary) -> LogitsProcessorList:
    """What `skd.engine.sampling.allowed` leaves: no padding rows, no forbidden tokens."""
    rows = teacher.get_output_embeddings().weight.shape[0]
    never = [*vocabulary.forbidden, *range(vocabulary.size, rows)]
    made = [SuppressTokensLogitsProcessor(never, device=teacher.device)] if never else []
    return LogitsProcessorList(made)


@contextmanager
def _own_settings_aside(*models: PreTrainedModel) -> Iterator[None]:
    """A published model brings penalties and nuclei; `generate` writes into its assistant's."""
    kept = [model.generation_config for model in models]
    for model in models:
        model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        for model, settings in zip(models, kept, strict=True):
            model.generation_config = settings
