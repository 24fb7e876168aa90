"""A method is where the response comes from × the loss. Both are rows of one table.

Knows ids and logits only; neither text nor the optimiser.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from skd.cache import attention_mask
from skd.config import Distill, Divergence, MethodSettings, Sampling
from skd.divergences import DIVERGENCES, forward_kl
from skd.sampling import Rollout, Teacher, sample, uniform_noise
from skd.seeding import generator
from skd.sequences import Batch, Example, Vocabulary, collate


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
) -> tuple[Batch, Rollout | None]:
    """The batch that this step trains on, and the rollout behind its sampled rows.

    progress: share of the run done. key: names the random numbers of this step.
    """
    sampled = _sampled_rows(method, len(examples), progress, key)
    if not sampled:
        return collate(examples, vocabulary.pad), None
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
    return _merge(examples, sampled, rollout, vocabulary), rollout


def _sampled_rows(
    method: Method, count: int, progress: float, key: tuple[object, ...]
) -> list[int]:
    """One coin per prompt, from the run's own generator."""
    if not method.samples or progress < method.start:
        return []
    coins = torch.rand(count, generator=generator(*key, "coin"), dtype=torch.float64)
    return (coins < method.coin).nonzero().flatten().tolist()


def _merge(
    examples: Sequence[Example], sampled: list[int], rollout: Rollout, vocabulary: Vocabulary
) -> Batch:
    """Sampled responses in their rows, ground truth in the others."""
    if len(sampled) == len(examples):
        return rollout.batch
    source = rollout.batch
    rows = list(examples)
    marks = {}
    for j, i in enumerate(sampled):
        start, stop = int(source.prompt_lengths[j]), int(source.lengths[j])
        rows[i] = Example(rows[i].prompt, tuple(source.tokens[j, start:stop].tolist()))
        marks[i] = source.replaced[j, :stop] if source.replaced is not None else None
    batch = collate(rows, vocabulary.pad).to(source.tokens.device)
    replaced = torch.zeros_like(batch.tokens, dtype=torch.bool)
    for i, mark in marks.items():
        if mark is not None:
            replaced[i, : len(mark)] = mark
    return Batch(batch.tokens, batch.prompt_lengths, batch.lengths, replaced)


# ----------------------------------------------------------------------- loss
def response_logits(model: PreTrainedModel, batch: Batch, vocabulary: Vocabulary) -> Tensor:
    """[N, V] fp32 logits that predict the response tokens of a batch, in `targets` order.

    A hook hands the output embedding only the positions it is needed at, so prompt logits
    are never made, and the model's own forward still applies its soft-capping and scaling.
    """
    wanted = batch.predictors

    def pick(_: torch.nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0][wanted], *inputs[1:])

    width = batch.tokens.shape[1]
    positions = torch.arange(width, device=batch.tokens.device)[None]
    hook = model.get_output_embeddings().register_forward_pre_hook(pick)
    try:
        output = model(
            input_ids=batch.tokens,
            position_ids=positions,
            attention_mask=attention_mask(model, positions, width),
            use_cache=False,
        )
        logits = output.logits[:, : vocabulary.size]
    finally:
        hook.remove()
    return logits if logits.dtype == torch.float64 else logits.float()


def loss_sum(
    method: Method,
    divergence: Divergence,
    student: Tensor,
    teacher: Tensor | None,
    targets: Tensor,
    replaced: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    """Σ over response tokens of the method's loss, and of KL(teacher ‖ student) for the log.

    student, teacher: [N, V] raw logits; targets: [N]; replaced: [N] bool. The caller divides
    by the batch's response tokens, whatever micro-batches it was cut into.
    """
    student_log = student.log_softmax(-1)
    teacher_log = None if teacher is None else teacher.log_softmax(-1)
    total = student.new_zeros(())
    kl = None
    if method.divergence:
        assert teacher_log is not None
        value = DIVERGENCES[divergence.name](teacher_log, student_log, divergence.beta).sum()
        total = total + method.divergence * value
        kl = value.detach() if divergence.name == "forward_kl" else None
    if kl is None and teacher_log is not None:
        with torch.no_grad():
            kl = forward_kl(teacher_log, student_log, 0.0).sum()
    if method.cross_entropy:
        labels, kept = _labels(method, teacher, targets, replaced)
        chosen = -student_log.gather(-1, labels[:, None]).squeeze(-1)
        total = total + method.cross_entropy * (chosen * kept).sum()
    return total, kl


def _labels(
    method: Method, teacher: Tensor | None, targets: Tensor, replaced: Tensor | None
) -> tuple[Tensor, Tensor]:
    """[N] labels of the cross-entropy and [N] which of them count."""
    everywhere = torch.ones_like(targets, dtype=torch.bool)
    if method.label == "teacher_argmax":
        assert teacher is not None
        return teacher.argmax(-1), everywhere
    if method.label == "replaced":
        return targets, torch.zeros_like(everywhere) if replaced is None else replaced
    return targets, everywhere
