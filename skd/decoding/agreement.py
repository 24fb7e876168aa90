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
from skd.training.chunks import tokens_at_once

TOP = 20  # the teacher's most likely tokens, whose order is compared
QUANTILES = (0.5, 0.9, 0.99)
POSITIONS = (0, 8, 16, 32)  # where a bucket begins: tokens from the response's begin
RANKS = (0, 1, 2, 5, 10, 25, 100)  # where a bucket begins: the teacher's rank of a token


def judged(rollouts: Sequence[Rollout]) -> JudgedProposals:
    """The proposals of interleaved sampling; a replaced token counts with its proposal's rank."""
    ranks = torch.cat([rollout.ranks[rollout.batch.response_mask] for rollout in rollouts])
    accepted = torch.cat([_accepted(rollout.batch) for rollout in rollouts])
    offsets = torch.cat([_offsets(rollout.batch) for rollout in rollouts])
    return JudgedProposals(
        ranks={start: _percent(rows) for start, rows in _bins(ranks, RANKS).items()},
        by_position={
            start: _percent(accepted[rows])
            for start, rows in _bins(offsets, POSITIONS).items()
            if bool(rows.any())
        },
    )


def _accepted(batch: TokenBatch) -> Tensor:
    """[N] of each response token, whether the student's proposal stayed."""
    assert batch.replaced is not None
    return ~batch.replaced[batch.response_mask]


def agreement(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    batches: Sequence[TokenBatch],
    vocabulary: Vocabulary,
    ks: tuple[int, ...],
) -> Agreement:
    """Both models over the responses of all batches, at each token's own prefix."""
    each = [_compare(student, teacher, batch, vocabulary) for batch in batches]
    kl, spearman, first, ranks, offsets = map(torch.cat, zip(*each, strict=True))
    within = {k: 100.0 * (ranks < k).double() for k in ks}
    return Agreement(
        kl=kl.mean().item(),
        spearman=spearman.mean().item(),
        first=_percent(first),
        ranks={str(q): ranks.double().quantile(q).item() for q in QUANTILES},
        within={str(k): values.mean().item() for k, values in within.items()},
        by_position={
            start: (kl[rows].mean().item(), within[max(ks)][rows].mean().item())
            for start, rows in _bins(offsets, POSITIONS).items()
            if bool(rows.any())
        },
    )


@torch.no_grad()
def _compare(
    student: PreTrainedModel, teacher: PreTrainedModel, batch: TokenBatch, vocabulary: Vocabulary
) -> tuple[Tensor, ...]:
    """KL, Spearman's ρ, same argmax, teacher's rank and place of each response token, each [N]."""
    models = (student, teacher)
    # A whole batch's logits, in fp64, would be the largest thing that any stage holds.
    at_once = tokens_at_once(batch.tokens.device, vocabulary.size)
    with evaluating(*models):
        states = [batch_states(model, batch)[batch.predictors] for model in models]
        columns = [column.split(at_once) for column in (*states, batch.targets)]
        chunks = []
        for *read, targets in zip(*columns, strict=True):
            ours, theirs = (
                allowed(head(model, own), vocabulary)
                for model, own in zip(models, read, strict=True)
            )  # [n, V]
            same = ours.argmax(-1) == theirs.argmax(-1)
            ranks = rank(theirs, targets)
            chunks.append((_kl(theirs, ours), _spearman(theirs, ours), same, ranks))
    return *map(torch.cat, zip(*chunks, strict=True)), _offsets(batch)


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
