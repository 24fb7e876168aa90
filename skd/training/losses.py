"""The loss of a batch's response tokens: what a method asks of the student, token by token.

Values and gradients are in closed form (`skd.training.divergences`); `skd.training.chunks` takes
them through the student's head. Knows logits and the columns of a method that concern the loss.
Refuses to know how responses are made, batches, text and the optimiser.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from skd.training.chunks import Predictions, chunked_loss, logits_at_once, tokens_at_once
from skd.training.divergences import DIVERGENCES, Valued, forward_kl, logit_gradient
from skd.training.methods import Loss, Tokens
from skd.training.settings import Divergence

# How many logits go through softmax, divergence and gradient together: what a CPU's cache holds.
_BLOCK_LOGITS = {"cpu": 2**19, "cuda": 2**26}


@dataclass(frozen=True)
class Terms:
    """What is asked of the student at the N response tokens of a batch."""

    loss: Loss
    divergence: Divergence  # where the loss does not fix its own
    targets: Tensor  # [N] the tokens that stand there
    replaced: Tensor | None = None  # [N] True at tokens that the teacher put in; None: nowhere

    def left_out(self, on: Tokens) -> Tensor | None:
        """[N] True at tokens that a part of the loss is not on; None: it is on all."""
        if on == "all":
            return None
        replaced = self.replaced
        if replaced is None:
            replaced = torch.zeros_like(self.targets, dtype=torch.bool)
        return replaced if on == "kept" else ~replaced

    def part(self, tokens: slice) -> Terms:
        """The terms of some of the tokens."""
        replaced = None if self.replaced is None else self.replaced[tokens]
        return Terms(self.loss, self.divergence, self.targets[tokens], replaced)


def response_loss(
    terms: Terms, student: Predictions, teacher: Predictions | None, size: int
) -> tuple[Tensor, Tensor | None]:
    """The sum over the response tokens of the loss, and of KL(teacher ‖ student) for the log.

    The first is differentiable in the student's states and head. The caller divides by the number
    of the batch's response tokens, whatever micro-batches the batch was cut into. Without a teacher
    there is no KL.

    Args:
        size: V, the number of tokens that both models share.
    """
    if len(student.states) != len(terms.targets):
        raise ValueError(
            f"{len(student.states)} states predict {len(terms.targets)} targets; expected as many"
        )
    step = tokens_at_once(student.states.device, size)
    chunks = [slice(start, start + step) for start in range(0, len(student.states), step)]
    compared = partial(_losses_and_gradient_, terms, teacher, size)
    total, kl = chunked_loss(compared, chunks, student, size)
    return total, None if teacher is None else kl


def _losses_and_gradient_(
    terms: Terms, teacher: Predictions | None, size: int, tokens: slice, logits: Tensor
) -> tuple[Tensor, Tensor]:
    """A chunk's losses [n] and KLs [n]; the losses' gradient is written over the logits [n, V]."""
    terms = terms.part(tokens)
    teacher_logits = None if teacher is None else teacher.logits(tokens, size)
    step = logits_at_once(_BLOCK_LOGITS, logits.device, size)
    losses, kls = [], []
    for start in range(0, len(logits), step):
        block = slice(start, start + step)
        student_block = logits[block]
        teacher_block = None if teacher_logits is None else teacher_logits[block]
        loss, kl, gradient = token_loss(terms.part(block), student_block, teacher_block)
        student_block.copy_(gradient)
        losses.append(loss)
        kls.append(kl)
    return torch.cat(losses), torch.cat(kls)


# ------------------------------------------------------------ the loss of single tokens
def token_loss(
    terms: Terms, student_logits: Tensor, teacher_logits: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss [n], KL(teacher ‖ student) [n] and ∂loss/∂logits [n, V] of n tokens.

    Both models' logits [n, V] are raw, and both are spent: results are written over them, since at
    a real vocabulary each further [n, V] costs memory and time.
    """
    loss = terms.loss
    student_log = _log_softmax_(student_logits)
    teacher_log = None if teacher_logits is None else _log_softmax_(teacher_logits)
    labels, weights = _labels(terms, student_log, teacher_log)
    values = -weights * student_log.gather(-1, labels).squeeze(-1)
    values.masked_fill_(weights == 0.0, 0.0)  # not asked for, though the student may exclude it
    name = loss.fixed or terms.divergence.name
    loss_is_kl = bool(loss.divergence) and name == "forward_kl" and terms.divergence.plain
    kl, slope = torch.zeros_like(values), None
    if teacher_log is not None and not loss_is_kl:  # for the log alone
        kl = forward_kl(teacher_log.clone(), student_log, 0.0)[0]
    if loss.divergence:
        assert teacher_log is not None
        divergences, slope = compare(name, terms.divergence, teacher_log, student_log)
        kl = divergences if loss_is_kl else kl
        divergences, slope = loss.divergence * divergences, slope.mul_(loss.divergence)
        if (left_out := terms.left_out(loss.divergence_on)) is not None:
            divergences.masked_fill_(left_out, 0.0)
            slope.masked_fill_(left_out[:, None], 0.0)
        values = values + divergences
    slope = torch.zeros_like(student_log) if slope is None else slope
    if loss.cross_entropy:
        slope.scatter_add_(-1, labels, -weights[:, None])
    return values, kl, logit_gradient(slope, student_log)


def compare(name: str, settings: Divergence, teacher_log: Tensor, student_log: Tensor) -> Valued:
    """A divergence's values [n] and slope [n, V], between the target and the student.

    Both log-probabilities are [n, V]; the teacher's are spent.
    Both are taken at their temperatures. The values are multiplied by the square of the student's,
    since gradients by its logits fall with that square (Hinton et al., arXiv 1503.02531, section
    2): the learning rate and the weight beside a cross-entropy keep their meaning. The target is a
    constant to the gradient.
    """
    divergence = DIVERGENCES[name]
    if settings.plain:
        return divergence(teacher_log, student_log, settings.beta)
    heat = settings.temperature
    student = _log_softmax_(student_log / heat)
    target = teacher_log.div_(settings.target_temperature)
    if settings.veto:
        target.add_(student, alpha=settings.veto)
    values, slope = divergence(_log_softmax_(target), student, settings.beta)
    # A gradient by the logits sums to 0, so it stands for a slope of the raw distribution.
    return heat**2 * values, logit_gradient(slope, student).mul_(heat)


def _log_softmax_(logits: Tensor) -> Tensor:
    """Log-probabilities in the logits' own memory: a row is read before it is written over."""
    return torch.log_softmax(logits, -1, out=logits)


def _labels(terms: Terms, student_log: Tensor, teacher_log: Tensor | None) -> tuple[Tensor, Tensor]:
    """The labels [n, 1] of the cross-entropy and their weights [n]."""
    weights = torch.full_like(student_log[:, 0], terms.loss.cross_entropy)
    if (left_out := terms.left_out(terms.loss.cross_entropy_on)) is not None:
        weights.masked_fill_(left_out, 0.0)
    if terms.loss.label == "teacher_argmax":
        assert teacher_log is not None
        return teacher_log.argmax(-1, keepdim=True), weights
    return terms.targets[:, None], weights
