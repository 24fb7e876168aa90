"""Which proposed tokens the teacher accepts, and what it puts in place of the others.

One small function per rule, in a visible table. All rules judge a proposal at its own
prefix; top_k, top_p and min_prob read the teacher's RAW logits, so that the teacher's
temperature and top-p shape only the draw of a replacement. Knows no caches and no loops.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from skd.engine.logits import distribution, draw, nucleus_mask, widened
from skd.engine.settings import Acceptance, Sampling


@dataclass(frozen=True)
class Proposals:
    """N proposed tokens with what both models said at their prefixes.

    tokens                 [N]
    teacher_logits         [N, V] raw
    teacher_rank           [N]    0: the teacher's most likely token
    student_probabilities  [N, V] the distribution that each proposal was drawn from
    """

    tokens: Tensor
    teacher_logits: Tensor
    teacher_rank: Tensor
    student_probabilities: Tensor


def top_k(proposals: Proposals, value: Tensor, noise: Tensor, teacher: Sampling) -> Tensor:
    """Among the teacher's K most likely tokens (paper, Algorithm 1)."""
    return proposals.teacher_rank < value.round()


def top_p(proposals: Proposals, value: Tensor, noise: Tensor, teacher: Sampling) -> Tensor:
    """Inside the teacher's smallest nucleus of mass >= p; rank 1 always is (official code)."""
    plain = distribution(proposals.teacher_logits, 1.0, 1.0)
    inside = nucleus_mask(plain, value.to(plain.dtype)[:, None])
    # A sum of rounded probabilities comes to 1 before their end: the mass of 1 is all tokens.
    return inside.gather(-1, proposals.tokens[:, None]).squeeze(-1) | (value >= 1.0)


def min_prob(proposals: Proposals, value: Tensor, noise: Tensor, teacher: Sampling) -> Tensor:
    """The teacher gives it at least this probability (CA-OPD, arXiv 2609.02401, eq. 6)."""
    logits = widened(proposals.teacher_logits)
    log_probability = logits.gather(-1, proposals.tokens[:, None]).squeeze(-1)
    log_probability = log_probability - logits.logsumexp(-1)
    return log_probability.exp() >= value.to(log_probability.dtype)


def ratio(proposals: Proposals, value: Tensor, noise: Tensor, teacher: Sampling) -> Tensor:
    """With probability min(1, 1 - λ + λ·teacher/student) (IPD, arXiv 2609.37170, eq. 3).

    With replacements drawn from the residual, the emitted token then follows the
    interpolated policy (1-λ)·student + λ·teacher exactly, both as they are sampled from.
    """
    wanted = distribution(proposals.teacher_logits, teacher.temperature, teacher.top_p)
    index = proposals.tokens[:, None]
    quotient = (wanted.gather(-1, index) / proposals.student_probabilities.gather(-1, index))[:, 0]
    kept, moved = (1.0 - value).to(quotient.dtype), value.to(quotient.dtype)
    return noise.to(quotient.dtype) < kept + moved * quotient


# Proposals, the rule's value [N] at each, uniforms [N], the teacher's sampling -> [N] accepted
ACCEPT: dict[str, Callable[[Proposals, Tensor, Tensor, Sampling], Tensor]] = {
    "top_k": top_k,
    "top_p": top_p,
    "min_prob": min_prob,
    "ratio": ratio,
}


def linear(first: float, last: float, progress: Tensor) -> Tensor:
    return first + progress * (last - first)


def cosine(first: float, last: float, progress: Tensor) -> Tensor:
    """Half a cosine from one logarithm to the other: CA-OPD's threshold in nats, eq. 14."""
    return first * (last / first) ** (0.5 - 0.5 * torch.cos(math.pi * progress))


# The first value, the last one and shares of the run [N] -> the values there [N]
SCHEDULES: dict[str, Callable[[float, float, Tensor], Tensor]] = {
    "linear": linear,
    "cosine": cosine,
}


def scheduled(acceptance: Acceptance, progress: Tensor) -> Tensor:
    """The rule's values at these shares of the run; without `final_value` they are constant."""
    last = acceptance.value if acceptance.final_value is None else acceptance.final_value
    return SCHEDULES[acceptance.schedule](acceptance.value, last, progress)


def replacement(
    acceptance: Acceptance, rejected: Proposals, teacher: Sampling, noise: Tensor
) -> Tensor:
    """[N] the teacher's tokens at the prefixes of rejected proposals; `noise` is [N] uniforms."""
    if acceptance.replacement == "argmax":
        return rejected.teacher_logits.argmax(-1)
    wanted = distribution(rejected.teacher_logits, teacher.temperature, teacher.top_p)
    if acceptance.rule == "ratio":
        residual = (wanted - rejected.student_probabilities).clamp_min(0.0)
        # Equal distributions leave no residual; rounding alone can reject there.
        wanted = torch.where(residual.sum(-1, keepdim=True) > 0.0, residual, wanted)
    return draw(wanted, noise)
