"""What a student is worth as a draft for its teacher: tokens per CPU second, one prompt at a time.

All ways of decoding take turns prompt by prompt in one process, so that they see one machine.
Knows ids only, and no files.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from transformers import PreTrainedModel

from skd.decoding.assisted import AssistError, assist
from skd.decoding.speculative import Decoded, Rule, speculate
from skd.engine.sampling import sample
from skd.engine.sequences import Vocabulary
from skd.engine.settings import Sampling
from skd.errors import UserError
from skd.results.analyses import DecodingSpeed, DraftWorth
from skd.training.settings import DECODING

GREEDY, WARM = DECODING["greedy"], DECODING["sample"]
ASSISTED = "assisted"  # greedy, by transformers
PLAIN: dict[str, Sampling] = {"plain_greedy": GREEDY, "plain_sampled": WARM}
DRAFTED: dict[str, tuple[Sampling, Rule]] = {
    "greedy": (GREEDY, "match"),
    "sampled": (WARM, "match"),
    "rejection": (WARM, "rejection"),
}


@dataclass(frozen=True)
class DecodedPrompt:
    ids: tuple[int, ...]
    decoded: Decoded | None = None  # how the draft fared, where our own decoder ran


Way = Callable[[Sequence[int], Tensor], DecodedPrompt]


def draft_worth(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    vocabulary: Vocabulary,
    length: int,
    noise: Tensor,
) -> DraftWorth:
    """The speed and acceptance of each way of decoding. noise: [3, prompts, length].

    The library's assisted generation has nulls and a reason where it refuses this pair. Raises
    `UserError` where our greedy outputs are not the teacher's own although it is in fp32. In half
    precision near ties of its logits may fall otherwise in a pass of more tokens.
    """
    ways = _ways(student, teacher, vocabulary, length)
    made, seconds, refused = _in_turns(ways, prompts, noise)
    alone = made["plain_greedy"]
    equal = {
        name: _equal(made[name], alone) for name in ("greedy", ASSISTED) if name not in refused
    }
    changed = len(prompts) - equal["greedy"]
    if changed and teacher.dtype.itemsize >= torch.float32.itemsize:
        raise UserError(
            f"speculative decoding changed the teacher's greedy output on {changed} of "
            f"{len(prompts)} prompts"
        )
    speeds = {
        name: DecodingSpeed(
            None if name in refused else _speed(made[name], seconds[name]),
            *_fate(made[name]),
            equal.get(name),
        )
        for name in ways
    }
    return DraftWorth(len(prompts), speeds, refused.get(ASSISTED))


def _ways(
    student: PreTrainedModel, teacher: PreTrainedModel, vocabulary: Vocabulary, length: int
) -> dict[str, Way]:
    def plain(sampling: Sampling, prompt: Sequence[int], noise: Tensor) -> DecodedPrompt:
        made = sample(teacher, [prompt], vocabulary, sampling, length, noise)
        return DecodedPrompt(made.batch.responses()[0])

    def drafted(
        sampling: Sampling, rule: Rule, prompt: Sequence[int], noise: Tensor
    ) -> DecodedPrompt:
        made = speculate(student, teacher, [prompt], vocabulary, sampling, length, noise, rule)
        return DecodedPrompt(made.rollout.batch.responses()[0], made)

    def assisted(prompt: Sequence[int], _: Tensor) -> DecodedPrompt:
        return DecodedPrompt(tuple(assist(student, teacher, prompt, vocabulary, GREEDY, length)))

    return {
        **{name: partial(plain, sampling) for name, sampling in PLAIN.items()},
        **{name: partial(drafted, *how) for name, how in DRAFTED.items()},
        ASSISTED: assisted,
    }


def _in_turns(
    ways: dict[str, Way], prompts: Sequence[Sequence[int]], noise: Tensor
) -> tuple[dict[str, list[DecodedPrompt]], dict[str, float], dict[str, str]]:
    """-> per way its responses and CPU seconds, and why a way was refused."""
    made: dict[str, list[DecodedPrompt]] = {name: [] for name in ways}
    seconds, refused = dict.fromkeys(ways, 0.0), {}
    rows = range(len(prompts))
    for i, counted in ((0, False), *((row, True) for row in rows)):  # the first round warms up
        for name, way in ways.items():
            if name in refused:
                continue
            began = time.process_time()
            try:
                response = way(prompts[i], noise[:, [i]])
            except AssistError as error:
                refused[name] = str(error)
                continue
            if counted:
                seconds[name] += time.process_time() - began
                made[name].append(response)
    return made, seconds, refused


def _equal(made: list[DecodedPrompt], alone: list[DecodedPrompt]) -> int:
    return sum(one.ids == own.ids for one, own in zip(made, alone, strict=True))


def _speed(made: list[DecodedPrompt], seconds: float) -> float:
    return sum(len(one.ids) for one in made) / seconds


def _fate(made: list[DecodedPrompt]) -> tuple[float | None, float | None]:
    """Percent of the drafted tokens that were kept, and tokens per teacher pass.

    None where nobody counted them.
    """
    decoded = [response.decoded for response in made if response.decoded is not None]
    if not decoded:
        return None, None
    emitted = sum(each.rollout.batch.response_tokens for each in decoded)
    drafted, kept, blocks = (
        sum(getattr(each.drafts, name) for each in decoded)
        for name in ("drafted", "kept", "blocks")
    )
    return 100 * kept / max(1, drafted), emitted / max(1, blocks)
