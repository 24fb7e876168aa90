"""Responses that all processes of a run make together, each those of its own rows.

Which process decodes a row does not show in what comes out. Knows ids only.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from transformers import PreTrainedModel

from skd.engine.generation import GREEDY, Done, Generated, generate, unseen
from skd.engine.rollout import uniform_noise
from skd.engine.seeding import generator
from skd.engine.sequences import TokenExample, Vocabulary
from skd.engine.settings import Sampling
from skd.training.group import ALONE, Group


def generate_together(
    group: Group,
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    vocabulary: Vocabulary,
    max_new_tokens: int,
    batch_size: int,
    sampling: Sampling = GREEDY,
    noise: Tensor | None = None,
    done: Done = unseen,
) -> Generated:
    """As `generate`: one response per prompt, in order, known to all processes of the group."""
    share = group.share(len(prompts))
    own = generate(
        model,
        [prompts[place] for place in share],
        vocabulary,
        max_new_tokens,
        batch_size,
        sampling,
        None if noise is None else noise[:, list(share)],
        done,
    )
    responses = group.rows(own.responses, len(prompts))
    stopped = group.rows([[int(end)] for end in own.stopped], len(prompts))
    return Generated(responses, [bool(end) for (end,) in stopped])


def teacher_responses(
    teacher: PreTrainedModel,
    examples: Sequence[TokenExample],
    vocabulary: Vocabulary,
    max_new_tokens: int,
    batch_size: int,
    sampling: Sampling,
    seed: int,
    done: Done = unseen,
    group: Group = ALONE,
) -> list[TokenExample]:
    """The teacher's own responses to these examples' prompts, made once for a run.

    done: told of this process's rows that have their responses.
    """
    prompts = [example.prompt for example in examples]
    noise = uniform_noise(len(prompts), max_new_tokens, generator(seed, "seq_kd"))
    generated = generate_together(
        group, teacher, prompts, vocabulary, max_new_tokens, batch_size, sampling, noise, done
    )
    pairs = zip(prompts, generated.responses, strict=True)
    return [TokenExample(prompt, tuple(response)) for prompt, response in pairs]
