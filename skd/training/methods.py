"""The methods: where a response comes from × the loss on it, as one table.

Everything that has to know a method reads this table: the settings' names, the training loop, the
report's families, the docs. A new method is one row here and its tests. The module is free of torch
and refuses to know how a response is made or a loss is computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

Label = Literal["emitted", "teacher_argmax"]
# Which response tokens a part of the loss is on; replaced: those that the teacher put in
Tokens = Literal["all", "kept", "replaced"]
Origin = Literal["paper", "official code", "other paper", "ours"]


class ResponseSource(StrEnum):
    """Where a row's response comes from."""

    GROUND_TRUTH = "ground_truth"
    TEACHER = "teacher"  # made once, before the first step
    STUDENT = "student"  # sampled while training
    INTERLEAVED = "interleaved"  # proposed by the student, corrected by the teacher

    @property
    def sampled(self) -> bool:
        """Whether responses are sampled while training; the others are known before."""
        return self in (ResponseSource.STUDENT, ResponseSource.INTERLEAVED)


@dataclass(frozen=True)
class Loss:
    """The loss of a response token: a weighted sum of a divergence and a cross-entropy."""

    # Weight of the divergence between teacher and student
    divergence: float = 0.0
    # Weight of the cross-entropy
    cross_entropy: float = 0.0
    # What the cross-entropy asks for: the token that stands there, or the teacher's most likely one
    label: Label = "emitted"
    divergence_on: Tokens = "all"
    cross_entropy_on: Tokens = "all"
    # Name of the divergence where the method itself fixes it; None: as the method's row sets it
    fixed: str | None = None

    @property
    def needs_teacher(self) -> bool:
        """Whether the teacher's logits enter the loss."""
        return self.divergence > 0.0 or self.label == "teacher_argmax"


CROSS_ENTROPY = Loss(cross_entropy=1.0)
DIVERGENCE = Loss(divergence=1.0)


@dataclass(frozen=True)
class Method:
    """A prompt's response comes from `response` with probability `coin`, from the share `start` of
    the run on. In all other cases it comes from `otherwise`. A paired method trains on both.
    """

    # One line for people
    description: str
    # The arXiv id of the method's source; None: no paper
    arxiv: str | None
    origin: Origin
    response: ResponseSource
    loss: Loss
    coin: float = 1.0
    start: float = 0.0
    otherwise: ResponseSource = ResponseSource.GROUND_TRUTH
    # The loss on the response that comes from `otherwise`; None: the same
    otherwise_loss: Loss | None = None
    # Whether every prompt gets both responses, each with its own loss
    paired: bool = False

    @property
    def sources(self) -> tuple[ResponseSource, ...]:
        """Where its responses may come from, `response` first."""
        alternative = self.paired or self.coin < 1.0 or self.start > 0.0
        both = (self.response, self.otherwise) if alternative else (self.response,)
        return tuple(dict.fromkeys(both))

    @property
    def baseline(self) -> bool:
        """Whether it is something that interleaved sampling is compared with."""
        return ResponseSource.INTERLEAVED not in self.sources

    def loss_of(self, otherwise: bool) -> Loss:
        """The loss on a row, by whether its response comes from `otherwise`."""
        return (self.otherwise_loss or self.loss) if otherwise else self.loss

    @property
    def losses(self) -> tuple[Loss, ...]:
        """The different losses on its rows."""
        own = self.otherwise_loss is not None and len(self.sources) > 1
        return (self.loss, self.loss_of(True)) if own else (self.loss,)

    @property
    def needs_teacher(self) -> bool:
        """Whether training steps run the teacher. Its own responses are made before the run."""
        return ResponseSource.INTERLEAVED in self.sources or any(
            loss.needs_teacher for loss in self.losses
        )

    @property
    def needs_shared_ids(self) -> bool:
        """Whether teacher and student must read the same ids, token by token.

        Interleaved sampling puts the teacher's tokens into the student's responses. A label that is
        the teacher's most likely token is an id of the teacher's.
        """
        return ResponseSource.INTERLEAVED in self.sources or any(
            loss.label == "teacher_argmax" for loss in self.losses
        )

    @property
    def known_share(self) -> float:
        """Of a run's prompts, the share whose response is known beforehand and read by the teacher.

        This is how often the teacher's states at known responses are asked for.
        """
        chosen = self.coin * (1.0 - self.start)
        shares = (1.0, 1.0) if self.paired else (chosen, 1.0 - chosen)
        rows = ((self.response, self.loss), (self.otherwise, self.loss_of(True)))
        return sum(
            share
            for share, (source, loss) in zip(shares, rows, strict=True)
            if not source.sampled and loss.needs_teacher
        )


_GROUND_TRUTH, _TEACHER = ResponseSource.GROUND_TRUTH, ResponseSource.TEACHER
_STUDENT, _INTERLEAVED = ResponseSource.STUDENT, ResponseSource.INTERLEAVED

METHODS: dict[str, Method] = {
    "sft": Method(
        "supervised fine-tuning on the ground truth",
        None, "paper", _GROUND_TRUTH, CROSS_ENTROPY,
    ),
    "seq_kd": Method(
        "fine-tuning on responses of the teacher, made once",
        "1606.07947", "paper", _TEACHER, CROSS_ENTROPY,
    ),
    "supervised_kd": Method(
        "the teacher's distribution along the ground truth",
        "1503.02531", "paper", _GROUND_TRUTH, DIVERGENCE,
    ),
    "on_policy_kd": Method(
        "the teacher's distribution along the student's own samples (GKD)",
        "2306.13649", "paper", _STUDENT, DIVERGENCE,
    ),
    "on_policy_hard": Method(
        "a control: the teacher's most likely token along the student's own samples",
        None, "ours", _STUDENT, Loss(cross_entropy=1.0, label="teacher_argmax"),
    ),
    "imit_kd": Method(
        "a coin per prompt: the student's sample or the ground truth",
        "2009.07253", "paper", _STUDENT, DIVERGENCE, coin=0.5,
    ),
    "skd": Method(
        "interleaved sampling: proposed by the student, corrected by the teacher",
        "2410.11325", "paper", _INTERLEAVED, DIVERGENCE,
    ),
    "skd_mixed_loss": Method(
        "interleaved sampling, half divergence and half cross-entropy on the emitted tokens",
        None, "ours", _INTERLEAVED, Loss(divergence=0.5, cross_entropy=0.5),
    ),
    "skd_kept": Method(
        "interleaved sampling, the divergence on kept tokens only",
        None, "ours", _INTERLEAVED, Loss(divergence=1.0, divergence_on="kept"),
    ),
    "ca_opd": Method(
        "interleaved sampling, cross-entropy on replaced and the divergence on kept tokens",
        "2609.02401", "other paper", _INTERLEAVED,
        Loss(divergence=1.0, divergence_on="kept", cross_entropy=1.0, cross_entropy_on="replaced"),
    ),
    "skd_with_teacher": Method(
        "a coin per prompt: interleaved sampling or the teacher's own response, made once",
        None, "ours", _INTERLEAVED, DIVERGENCE, coin=0.5, otherwise=_TEACHER,
    ),
    "skd_and_teacher": Method(
        "both per prompt: interleaved sampling and the teacher's own response, made once",
        None, "ours", _INTERLEAVED, DIVERGENCE, otherwise=_TEACHER, paired=True,
    ),
    "mixed_skd": Method(
        "a coin per prompt: interleaved sampling or the ground truth",
        "2410.11325", "official code", _INTERLEAVED, DIVERGENCE, coin=0.5,
    ),
    "two_stage_kd": Method(
        "the ground truth for the first half of the steps, then the student's samples",
        "2410.11325", "paper", _STUDENT, DIVERGENCE, start=0.5,
    ),
    "distillm2": Method(
        "both per prompt: skewed reverse KL on the student's sample, skewed KL on the teacher's",
        "2503.07067", "other paper", _STUDENT, Loss(divergence=1.0, fixed="skew_rkl"),
        otherwise=_TEACHER, otherwise_loss=Loss(divergence=1.0, fixed="skew_kl"), paired=True,
    ),
    "student_and_teacher": Method(
        "both per prompt: the student's sample and the teacher's own response, made once",
        None, "ours", _STUDENT, DIVERGENCE, otherwise=_TEACHER, paired=True,
    ),
    "seq_kd_then_skd": Method(
        "fine-tuning on the teacher's responses for half of the steps, then interleaved sampling",
        None, "ours", _INTERLEAVED, DIVERGENCE, start=0.5,
        otherwise=_TEACHER, otherwise_loss=CROSS_ENTROPY,
    ),
}  # fmt: skip
