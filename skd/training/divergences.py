"""Divergences between the teacher's and the student's next-token distributions.

Each takes log-probabilities [N, V] over the full common vocabulary and gives its values
[N] in nats with its slope [N, V], q·∂D/∂q for the student's probabilities q. A term c·q of
the slope changes nothing (`logit_gradient` projects it out), so constants are left out.
The teacher's log-probabilities are spent: what is computed overwrites them, because at a
real vocabulary each further [N, V] is what a loss's memory and half of its time are made of.
A token that both models exclude adds nothing, to the value and to the slope.
Nothing here knows temperatures, masks or batches: `skd.training.losses` sums.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

LogProbabilities = Tensor  # [N, V]
_LOG_OF_NOUGHT = -1e30  # finite, so that its product with 0 is 0
Valued = tuple[Tensor, Tensor]  # values [N], slope [N, V]


def logit_gradient(slope: Tensor, student: LogProbabilities) -> Tensor:
    """[N, V] ∂D/∂z for the student's logits z, in place of `slope`: u - q Σu. Spends `student`."""
    return slope.addcmul_(student.exp_(), slope.sum(-1, keepdim=True), value=-1.0)


def forward_kl(teacher: LogProbabilities, student: LogProbabilities, beta: float) -> Valued:
    """KL(teacher ‖ student): the paper's main divergence."""
    p = teacher.exp()
    return _terms(p, teacher, student, out=teacher)[0], p.neg_()


def reverse_kl(teacher: LogProbabilities, student: LogProbabilities, beta: float) -> Valued:
    """KL(student ‖ teacher)."""
    return _terms(student.exp(), student, teacher, out=teacher)


def jsd(teacher: LogProbabilities, student: LogProbabilities, beta: float) -> Valued:
    """β KL(teacher ‖ M) + (1-β) KL(student ‖ M), M = β teacher + (1-β) student.

    GKD (arXiv 2306.13649, eq. 1). At β = 0 and 1 it is the limit of JSD/β and
    JSD/(1-β): the forward and the reverse KL.
    """
    if beta in (0.0, 1.0):
        return (reverse_kl if beta else forward_kl)(teacher, student, beta)
    p, q = teacher.exp(), student.exp()
    mixture = _log_(_mixture(p, q, beta))
    values = beta * _terms(p, teacher, mixture, out=teacher)[0]
    slope = _terms(q, student, mixture, out=mixture)[1].mul_(1.0 - beta)
    return values + slope.sum(-1), slope


def skew_kl(teacher: LogProbabilities, student: LogProbabilities, beta: float) -> Valued:
    """KL(teacher ‖ α teacher + (1-α) student), α = beta (DistiLLM, arXiv 2402.03898)."""
    if beta == 0.0:
        return forward_kl(teacher, student, beta)
    p, q = teacher.exp(), student.exp()
    mixture = _mixture(p, q, beta)
    values, _ = _terms(p, teacher, _log_(mixture.clone()), out=teacher)
    slope = _nought_where_empty(p.mul_(q).div_(mixture), mixture)
    return values, slope.mul_(beta - 1.0)


def skew_rkl(teacher: LogProbabilities, student: LogProbabilities, beta: float) -> Valued:
    """KL(student ‖ α student + (1-α) teacher), α = beta (DistiLLM, arXiv 2402.03898)."""
    if beta == 0.0:
        return reverse_kl(teacher, student, beta)
    p, q = teacher.exp(), student.exp()
    mixture = _mixture(q, p, beta)
    values, terms = _terms(q, student, _log_(mixture.clone()), out=teacher)
    share = _nought_where_empty(q.square_().div_(mixture), mixture)
    return values, terms.sub_(share, alpha=beta)


def total_variation(teacher: LogProbabilities, student: LogProbabilities, beta: float) -> Valued:
    """½ Σ |teacher - student|, in [0, 1]."""
    q = student.exp()
    excess = torch.sub(q, teacher.exp_(), out=teacher)
    return 0.5 * excess.abs().sum(-1), excess.sign_().mul_(q).mul_(0.5)


def adaptive_kl(teacher: LogProbabilities, student: LogProbabilities, beta: float) -> Valued:
    """The forward and the reverse KL, weighted by the gaps on the teacher's head and tail.

    AKL (arXiv 2404.02657). The head: the teacher's most likely tokens of mass β together, its
    first one always. A gap is Σ |teacher - student|. The weights are constants to the gradient.
    """
    p = teacher.exp()
    ordered, places = p.sort(-1, descending=True)
    tail = ordered.cumsum_(-1) > beta
    tail[:, 0] = False
    gaps = p.sub_(student.exp()).abs_().gather(-1, places)
    whole = gaps.sum(-1).clamp_min_(torch.finfo(gaps.dtype).tiny)
    tail_share = gaps.masked_fill(~tail, 0.0).sum(-1) / whole
    head_share = gaps.masked_fill_(tail, 0.0).sum(-1) / whole
    reverse, slope = _weighted(tail_share, reverse_kl(teacher.clone(), student, beta))
    forward, forward_slope = _weighted(head_share, forward_kl(teacher, student, beta))
    return forward + reverse, slope.add_(forward_slope)


def entropy_aware(teacher: LogProbabilities, student: LogProbabilities, beta: float) -> Valued:
    """The reverse KL, and the forward KL besides where the teacher's entropy is over β nats.

    EOPD (arXiv 2603.07079, there 0.8 nats), over the full vocabulary.
    """
    uncertain = torch.special.entr(teacher.exp()).sum(-1) > beta
    reverse, slope = reverse_kl(teacher.clone(), student, beta)
    forward, forward_slope = _weighted(
        uncertain.to(reverse.dtype), forward_kl(teacher, student, beta)
    )
    return forward + reverse, slope.add_(forward_slope)


def _weighted(weights: Tensor, valued: Valued) -> Valued:
    """Values and slopes times weights [N]; a weight of 0 takes away infinite ones too."""
    none = weights == 0.0
    values, slope = (x.mul_(w) for x, w in zip(valued, (weights, weights[:, None]), strict=True))
    return values.masked_fill_(none, 0.0), slope.masked_fill_(none[:, None], 0.0)


def _terms(p: Tensor, log_p: LogProbabilities, log_q: LogProbabilities, out: Tensor) -> Valued:
    """p (log p - log q), written over `out`, and its sums [N]; 0 where p is, whatever q is."""
    terms = torch.sub(log_p.clamp_min_(_LOG_OF_NOUGHT), log_q, out=out).mul_(p)
    values = terms.sum(-1)
    # 0 · ∞: a token that both exclude. To look for it in each term would cost half as much again.
    if bool(values.isnan().any()):
        values = _nought_where_empty(terms, p).sum(-1)
    return values, terms


def _log_(p: Tensor) -> LogProbabilities:
    return p.log_().clamp_min_(_LOG_OF_NOUGHT)


def _nought_where_empty(values: Tensor, mass: Tensor) -> Tensor:
    return values.masked_fill_(mass == 0.0, 0.0)


def _mixture(p: Tensor, q: Tensor, share: float) -> Tensor:
    """share·p + (1-share)·q"""
    return torch.lerp(q, p, share)


DIVERGENCES: dict[str, Callable[[LogProbabilities, LogProbabilities, float], Valued]] = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "jsd": jsd,
    "skew_kl": skew_kl,
    "skew_rkl": skew_rkl,
    "total_variation": total_variation,
    "adaptive_kl": adaptive_kl,
    "entropy_aware": entropy_aware,
}
