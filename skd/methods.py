"""A method is where the response comes from × the loss. Both are columns of one table.

`respond` makes a step's responses, with the teacher's states at them; `skd.losses` makes the
loss. Knows ids only; neither text nor the optimiser.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from skd.meter import DATA, TEACHER, Stopwatch
from skd.rollout import Rollout, uniform_noise
from skd.sampling import Teacher, sample
from skd.sections import Distill, MethodSettings, Sampling
from skd.seeding import generator
from skd.sequences import Batch, Example, Vocabulary, collate
from skd.states import batch_states


@dataclass(frozen=True)
class Method:
    """`response` is used with probability `coin` per prompt, from share `start` of the run on;
    ground truth otherwise. The loss is a weighted sum of a divergence and a cross-entropy.
    """

    response: Literal["ground_truth", "teacher", "student", "interleaved"]
    divergence: float = 0.0
    cross_entropy: float = 0.0
    label: Literal["emitted", "replaced", "teacher_argmax"] = "emitted"  # of the cross-entropy
    coin: float = 1.0
    start: float = 0.0

    @property
    def needs_teacher(self) -> bool:
        """Whether training steps run the teacher (`teacher` responses are made beforehand)."""
        return (
            self.response == "interleaved"
            or self.divergence > 0.0
            or self.label == "teacher_argmax"
        )

    @property
    def samples(self) -> bool:
        """Whether responses are sampled while training."""
        return self.response in ("student", "interleaved")

    @property
    def known_share(self) -> float:
        """Of a run's rows, those that the teacher reads and that are known beforehand."""
        if not self.needs_teacher:
            return 0.0
        return 1.0 - self.coin * (1.0 - self.start) if self.samples else 1.0


METHODS: dict[str, Method] = {
    "sft": Method("ground_truth", cross_entropy=1.0),
    "seq_kd": Method("teacher", cross_entropy=1.0),
    "supervised_kd": Method("ground_truth", divergence=1.0),
    "on_policy_kd": Method("student", divergence=1.0),
    "on_policy_hard": Method("student", cross_entropy=1.0, label="teacher_argmax"),
    "imit_kd": Method("student", divergence=1.0, coin=0.5),
    "skd": Method("interleaved", divergence=1.0),
    "skd_mixed_loss": Method("interleaved", divergence=0.5, cross_entropy=0.5),
    "mixed_skd": Method("interleaved", divergence=1.0, coin=0.5),
    "two_stage_kd": Method("student", divergence=1.0, start=0.5),
}

# How `seq_kd` decodes the teacher: plain sampling from its distribution, or its argmax.
DECODING = {"greedy": Sampling(temperature=0.0), "sample": Sampling(temperature=1.0)}


# ------------------------------------------------------------------ responses
@dataclass(frozen=True)
class Responses:
    """A batch to train on, and what it took."""

    batch: Batch  # with the teacher's states where the method needs the teacher
    rollout: Rollout | None  # behind the sampled rows
    teacher_passes: int
    teacher_tokens: int
    seconds: Mapping[str, float]  # by phase of `skd.meter`


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
