"""Makes a step's responses, with the teacher's states at them.

Knows ids only; neither text, the loss nor the optimiser.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from skd.engine.meter import DATA, TEACHER, Stopwatch
from skd.engine.rollout import Rollout, uniform_noise
from skd.engine.sampling import Teacher, sample
from skd.engine.seeding import generator
from skd.engine.sequences import Batch, Example, Vocabulary, collate
from skd.engine.settings import Sampling
from skd.engine.states import batch_states
from skd.training.methods import Method
from skd.training.settings import Distill, MethodSettings

# How `seq_kd` decodes the teacher: plain sampling from its distribution, or its argmax.
DECODING = {"greedy": Sampling(temperature=0.0), "sample": Sampling(temperature=1.0)}


@dataclass(frozen=True)
class Responses:
    """A batch to train on, and what it took."""

    batch: Batch  # with the teacher's states where the method needs the teacher
    rollout: Rollout | None  # behind the sampled rows
    teacher_passes: int
    teacher_tokens: int
    seconds: Mapping[str, float]  # by phase of `skd.engine.meter`


Kept = Mapping[Example, Tensor]  # states [len(response), d] where the teacher predicts a response
NOTHING_KEPT: Kept = {}


def respond(
    method: Method,
    settings: MethodSettings,
    distill: Distill,
    student: PreTrainedModel,
    teacher: PreTrainedModel | None,
    examples: Sequence[Example],
    vocabulary: Vocabulary,
    max_new_tokens: int,
    progress: float,
    key: tuple[object, ...],
    kept: Kept = NOTHING_KEPT,
) -> Responses:
    """The responses to these examples' prompts.

    The teacher scored every kept token of interleaved rows while it verified them, and `kept`
    has its states at known responses, so only the other rows cost it a forward. progress:
    share of the run done. key: names the random numbers of this step.
    """
    sampled = _sampled_rows(method, len(examples), progress, key)
    rollout, watch = None, Stopwatch(student.device)
    if sampled:
        interleaving = None
        if method.response == "interleaved":
            assert teacher is not None
            interleaving = Teacher(teacher, settings.acceptance, distill.teacher_sampling, progress)
        noise = uniform_noise(len(examples), max_new_tokens, generator(*key, "noise"))
        rollout = sample(
            student,
            [examples[i].prompt for i in sampled],
            vocabulary,
            distill.student_sampling,
            max_new_tokens,
            noise[:, sampled],
            interleaving,
            distill.block_size,
        )
    if rollout is not None:
        watch.absorb(rollout.cost.watch.seconds, rest=DATA)
    batch = _merge(examples, sampled, rollout, vocabulary).to(student.device)
    watch.lap(DATA)
    passes = tokens = 0
    if method.needs_teacher and batch.teacher_states is None:
        assert teacher is not None
        optimisation = distill.optimisation
        size = _BATCHES_AT_ONCE * (optimisation.micro_batch_size or optimisation.batch_size)
        verified = None if rollout is None else rollout.batch.teacher_states
        known = {
            row: (len(example.prompt) - 1, kept[example])
            for row, example in enumerate(examples)
            if row not in sampled and example in kept
        }
        batch, passes, tokens = _teach(teacher, batch, sampled, verified, known, size)
        watch.lap(TEACHER)
    if rollout is not None:
        passes, tokens = passes + rollout.cost.teacher_passes, tokens + rollout.cost.teacher_tokens
    return Responses(batch, rollout, passes, tokens, watch.seconds)


# Training batches that go through the teacher together: its forward keeps neither activations nor
# logits. On a CPU a rollout of `on_policy_kd` took a fifth less than with one (docs/adr/0013).
_BATCHES_AT_ONCE = 4


def _sampled_rows(
    method: Method, count: int, progress: float, key: tuple[object, ...]
) -> list[int]:
    """One coin per prompt, from the run's own generator."""
    if not method.samples or progress < method.start:
        return []
    coins = torch.rand(count, generator=generator(*key, "coin"), dtype=torch.float64)
    return (coins < method.coin).nonzero().flatten().tolist()


def _merge(
    examples: Sequence[Example],
    sampled: list[int],
    rollout: Rollout | None,
    vocabulary: Vocabulary,
) -> Batch:
    """Sampled responses in their rows, ground truth in the others."""
    if rollout is None:
        return collate(examples, vocabulary.pad)
    if len(sampled) == len(examples):
        return rollout.batch
    source = rollout.batch
    rows = list(examples)
    for j, i in enumerate(sampled):
        start, stop = int(source.prompt_lengths[j]), int(source.lengths[j])
        rows[i] = Example(rows[i].prompt, tuple(source.tokens[j, start:stop].tolist()))
    batch = collate(rows, vocabulary.pad).to(source.tokens.device)
    replaced = torch.zeros_like(batch.tokens, dtype=torch.bool)
    if source.replaced is not None:
        replaced[sampled, : source.tokens.shape[1]] = source.replaced
    return dataclasses.replace(batch, replaced=replaced)


@torch.no_grad()
def _teach(
    teacher: PreTrainedModel,
    batch: Batch,
    sampled: list[int],
    verified: Tensor | None,
    known: Mapping[int, tuple[int, Tensor]],
    size: int,
) -> tuple[Batch, int, int]:
    """The batch with the teacher's states, fresh ones in rows that do not have them already.

    verified: of the `sampled` rows; known: by row, the first position and the states from there.
    `size` rows go through the teacher at once. Also gives its passes and their tokens.
    """
    shape = (*batch.tokens.shape, teacher.config.hidden_size)
    states = torch.zeros(shape, dtype=teacher.dtype, device=batch.tokens.device)
    missing = sorted(set(range(len(batch.tokens))) - known.keys())
    for row, (first, own) in known.items():
        states[row, first : first + len(own)] = own.to(states.device)
    if verified is not None:
        states[sampled, : verified.shape[1]] = verified
        missing = sorted(set(missing) - set(sampled))
    missing.sort(key=batch.lengths.tolist().__getitem__)  # like lengths side by side
    parts = [missing[i : i + size] for i in range(0, len(missing), size)]
    for rows in parts:
        part = batch.take(rows)
        fresh = batch_states(teacher, part)
        states[rows, : part.tokens.shape[1]] = fresh.to(states.dtype)
    tokens = int(batch.lengths[missing].sum())
    return dataclasses.replace(batch, teacher_states=states), len(parts), tokens
