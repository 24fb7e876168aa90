"""How far two models agree along a response, whoever wrote the prefix.

Knows ids and logits; no text, no training and no files.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from skd.logits import rank
from skd.sampling import allowed, evaluating
from skd.sequences import Batch, Vocabulary
from skd.states import batch_states, head

TOP = 20  # the teacher's most likely tokens, whose order is compared
QUANTILES = (0.5, 0.9, 0.99)
POSITIONS = ((0, 8), (8, 16), (16, 32), (32, 1 << 30))  # tokens from the response's begin


@dataclass(frozen=True)
class Agreement:
    """Means over the response tokens of a batch.

    kl            KL(teacher ‖ student) in nats per token
    spearman      rank correlation of the two models' logits over the teacher's TOP tokens
    first         percent of positions where both have the same most likely token
    ranks         quantile -> the teacher's rank of the tokens (0: its most likely one)
    within        K -> percent of the tokens among the teacher's K most likely
    by_position   first token -> (kl, percent within the largest K) from there in the response on
    """

    kl: float
    spearman: float
    first: float
    ranks: dict[str, float]
    within: dict[str, float]
    by_position: dict[str, tuple[float, float]]


@torch.no_grad()
def agreement(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    batch: Batch,
    vocabulary: Vocabulary,
    ks: tuple[int, ...],
) -> Agreement:
    """Both models over the responses of `batch`, at each token's own prefix."""
    with evaluating(student, teacher):
        ours, theirs = (
            allowed(head(model, batch_states(model, batch)[batch.predictors]), vocabulary)
            for model in (student, teacher)
        )  # [N, V]
    kl = _kl(theirs, ours)
    ranks = rank(theirs, batch.targets)
    within = {k: 100.0 * (ranks < k).double() for k in ks}
    offset = _offsets(batch)
    bins = {
        str(start): (offset >= start) & (offset < stop)
        for start, stop in POSITIONS
        if bool(((offset >= start) & (offset < stop)).any())
    }
    return Agreement(
        kl=kl.mean().item(),
        spearman=_spearman(theirs, ours).mean().item(),
        first=100.0 * (ours.argmax(-1) == theirs.argmax(-1)).double().mean().item(),
        ranks={str(q): ranks.double().quantile(q).item() for q in QUANTILES},
        within={str(k): values.mean().item() for k, values in within.items()},
        by_position={
            start: (kl[rows].mean().item(), within[max(ks)][rows].mean().item())
            for start, rows in bins.items()
        },
    )


def _kl(teacher: Tensor, student: Tensor) -> Tensor:
    """[N, V] raw logits -> [N] in fp64, forbidden tokens (-inf on both sides) left out."""
    wanted, made = (logits.double().log_softmax(-1) for logits in (teacher, student))
    return (wanted.exp() * (wanted - made)).nan_to_num(nan=0.0).sum(-1)


def _spearman(teacher: Tensor, student: Tensor) -> Tensor:
    """[N, V] -> [N] correlation of the ranks among the teacher's most likely tokens."""
    size = min(TOP, teacher.shape[-1])
    values, ids = teacher.topk(size, -1)
    others = student.gather(-1, ids)
    a, b = (x.argsort(-1).argsort(-1).double() for x in (values, others))
    a, b = (x - x.mean(-1, keepdim=True) for x in (a, b))
    return (a * b).sum(-1) / (a.square().sum(-1) * b.square().sum(-1)).sqrt().clamp_min(1e-12)


def _offsets(batch: Batch) -> Tensor:
    """[N] place of each target in its response."""
    slots = torch.arange(batch.tokens.shape[1], device=batch.tokens.device)
    return (slots - batch.prompt_lengths[:, None])[batch.response_mask]
