"""One response per prompt, for any number of prompts.

Knows ids only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from skd.engine.sampling import sample
from skd.engine.sequences import Vocabulary
from skd.engine.settings import Sampling

GREEDY = Sampling(temperature=0.0)
# Called with a number of rows whenever so many more are done
Done = Callable[[int], object]


def unseen(_rows: int) -> None:
    """Of work whose progress nobody watches."""


@dataclass(frozen=True)
class Generated:
    responses: list[list[int]]  # ids, the end-of-sequence token included
    stopped: list[bool]


def generate(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    vocabulary: Vocabulary,
    max_new_tokens: int,
    batch_size: int,
    sampling: Sampling = GREEDY,
    noise: torch.Tensor | None = None,
    done: Done = unseen,
) -> Generated:
    """One response per prompt, in order.

    Args:
        noise: [3, B, max_new_tokens]; None: greedy.
        done: told of rows that have their responses.
    """
    # Like lengths side by side: little padding, and rows that finish together.
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    responses: list[list[int]] = [[] for _ in prompts]
    stopped = [False] * len(prompts)
    if noise is None:
        noise = torch.zeros(3, len(prompts), max_new_tokens, dtype=torch.float64)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        rollout = sample(
            model,
            [prompts[i] for i in rows],
            vocabulary,
            sampling,
            max_new_tokens,
            noise[:, rows],
        )
        batch = rollout.batch.to(torch.device("cpu"))
        for j, i in enumerate(rows):
            span = slice(int(batch.prompt_lengths[j]), int(batch.lengths[j]))
            responses[i] = batch.tokens[j, span].tolist()
            stopped[i] = bool(rollout.stopped[j])
        done(len(rows))
    return Generated(responses, stopped)
