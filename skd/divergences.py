"""Divergences between the teacher's and the student's next-token distributions.

Each takes log-probabilities [N, V] over the full common vocabulary and gives [N] nats.
Nothing here knows temperatures, masks or batches: `skd.methods` averages.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

LogProbabilities = Tensor  # [N, V]


def _kl(log_p: LogProbabilities, log_q: LogProbabilities) -> Tensor:
    """Σ p (log p - log q), with 0 log 0 = 0 in value and gradient."""
    empty = log_p == -math.inf
    safe_p = log_p.masked_fill(empty, 0.0)
    terms = safe_p.exp() * (safe_p - log_q.masked_fill(empty, 0.0))
    return terms.masked_fill(empty, 0.0).sum(-1)


def _log_mixture(log_p: LogProbabilities, log_q: LogProbabilities, share: float) -> Tensor:
    """log(share·p + (1-share)·q)"""
    return torch.logaddexp(log_p + math.log(share), log_q + math.log1p(-share))


def forward_kl(teacher: Tensor, student: Tensor, beta: float) -> Tensor:
    """KL(teacher ‖ student): the paper's main divergence."""
    return _kl(teacher, student)


def reverse_kl(teacher: Tensor, student: Tensor, beta: float) -> Tensor:
    """KL(student ‖ teacher)."""
    return _kl(student, teacher)


def jsd(teacher: Tensor, student: Tensor, beta: float) -> Tensor:
    """β KL(teacher ‖ M) + (1-β) KL(student ‖ M), M = β teacher + (1-β) student.

    GKD (arXiv 2306.13649, eq. 1). At β = 0 and 1 it is the limit of JSD/β and
    JSD/(1-β): the forward and the reverse KL.
    """
    if beta in (0.0, 1.0):
        return (reverse_kl if beta else forward_kl)(teacher, student, beta)
    mixture = _log_mixture(teacher, student, beta)
    return beta * _kl(teacher, mixture) + (1.0 - beta) * _kl(student, mixture)


def skew_kl(teacher: Tensor, student: Tensor, beta: float) -> Tensor:
    """KL(teacher ‖ α teacher + (1-α) student), α = beta (DistiLLM, arXiv 2402.03898)."""
    return _skewed(teacher, student, beta)


def skew_rkl(teacher: Tensor, student: Tensor, beta: float) -> Tensor:
    """KL(student ‖ α student + (1-α) teacher), α = beta (DistiLLM, arXiv 2402.03898)."""
    return _skewed(student, teacher, beta)


def _skewed(log_p: LogProbabilities, log_q: LogProbabilities, share: float) -> Tensor:
    if share == 0.0:
        return _kl(log_p, log_q)
    return _kl(log_p, log_p if share == 1.0 else _log_mixture(log_p, log_q, share))


def total_variation(teacher: Tensor, student: Tensor, beta: float) -> Tensor:
    """½ Σ |teacher - student|, in [0, 1]."""
    return 0.5 * (teacher.exp() - student.exp()).abs().sum(-1)


DIVERGENCES: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "jsd": jsd,
    "skew_kl": skew_kl,
    "skew_rkl": skew_rkl,
    "total_variation": total_variation,
}
