"""How far two models agree along a response, whoever wrote the prefix.

Knows ids and logits; no text, no training and no files.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from skd.engine.logits import rank
from skd.engine.rollout import Rollout
from skd.engine.sampling import allowed
from skd.engine.sequences import TokenBatch, Vocabulary
from skd.engine.states import batch_states, evaluating, head
from skd.results.analyses import Agreement, JudgedProposals

TOP = 20  # the teacher's most likely tokens, whose order is compared
QUANTILES = (0.5, 0.9, 0.99)
POSITIONS = (0, 8, 16, 32)  # where a bucket begins: tokens from the response's begin
RANKS = (0, 1, 2, 5, 10, 25, 100)  # where a bucket begins: the teacher's rank of a token


def judged(rollout: Rollout) -> JudgedProposals:
    """The proposals of interleaved sampling; a replaced token counts with its proposal's rank."""
    batch = rollout.batch
    assert batch.replaced is not None
    ranks = rollout.ranks[batch.response_mask]
    accepted = ~batch.replaced[batch.response_mask]
    return JudgedProposals(
        ranks={start: _percent(rows) for start, rows in _bins(ranks, RANKS).items()},
        by_position={
            start: _percent(accepted[rows])
            for start, rows in _bins(_offsets(batch), POSITIONS).items()
            if bool(rows.any())
        },
    )


@torch.no_grad()
def agreement(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    batch: TokenBatch,
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
    places = _bins(_offsets(batch), POSITIONS)
    return Agreement(
        kl=kl.mean().item(),
        spearman=_spearman(theirs, ours).mean().item(),
        first=100.0 * (ours.argmax(-1) == theirs.argmax(-1)).double().mean().item(),
        ranks={str(q): ranks.double().quantile(q).item() for q in QUANTILES},
        within={str(k): values.mean().item() for k, values in within.items()},
        by_position={
            start: (kl[rows].mean().item(), within[max(ks)][rows].mean().item())
            for start, rows in places.items()
            if bool(rows.any())
        },
    )


def _bins(values: Tensor, starts: Sequence[int]) -> dict[str, Tensor]:
    """[N] -> first value of a bucket -> [N] which values lie in it; the last one is open."""
    ends = (*starts[1:], torch.inf)
    return {
        str(start): (values >= start) & (values < stop)
        for start, stop in zip(starts, ends, strict=True)
    }


def _percent(flags: Tensor) -> float:
    return 100.0 * flags.double().mean().item()


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


def _offsets(batch: TokenBatch) -> Tensor:
    """[N] place of each target in its response."""
    slots = torch.arange(batch.tokens.shape[1], device=batch.tokens.device)
    return (slots - batch.prompt_lengths[:, None])[batch.response_mask]
