"""Interleaved sampling (paper, Algorithm 1) in blocks, and plain sampling by the same loop.

The student proposes γ tokens, the teacher scores them in one pass, the leading accepted
run is kept, the first rejected token is replaced by the teacher's, the rest is thrown
away. There is no bonus token, so γ changes the cost and never the distribution. Each
token is a function of its prefix and of the uniforms of its own (row, position), so the
emitted sequences do not depend on γ, on the batch around a row or on its order: that is
the oracle the tests hold this file against. Knows ids only: no text, losses or gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from skd.engine.acceptance import ACCEPT, Proposals, replacement, scheduled
from skd.engine.cache import CachedModel, prefills
from skd.engine.cached_sources import cached
from skd.engine.checking import check_reach
from skd.engine.logits import distribution, draw, rank
from skd.engine.meter import Phase, Stopwatch, wait
from skd.engine.pace import Pace
from skd.engine.rollout import Cost, Noise, Rollout, Rows, gather
from skd.engine.sequences import Vocabulary, ids_on, on_device
from skd.engine.settings import Acceptance, Sampling
from skd.engine.states import evaluating, head, states_width


@dataclass(frozen=True)
class Interleaving:
    """The teacher's part in interleaved sampling."""

    teacher: PreTrainedModel
    acceptance: Acceptance
    # How replacements are drawn
    sampling: Sampling
    # [B] the share of the run that is done when a row is trained on, for scheduled rules; [1]: for
    # all rows
    progress: Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.float64))

    def of_rows(self, count: int) -> Interleaving:
        """The same with a progress for each row, where the teacher is."""
        progress = on_device(self.progress, self.teacher.device)
        return replace(self, progress=progress.expand(count))


@torch.no_grad()
def sample(
    student: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    vocabulary: Vocabulary,
    sampling: Sampling,
    max_new_tokens: int,
    noise: Tensor,
    interleaving: Interleaving | None = None,
    block_size: int | Literal["auto"] = "auto",
) -> Rollout:
    """Sample one response per prompt, the teacher correcting proposals if there is one.

    Both models are in evaluation mode meanwhile. Without a teacher this is plain sampling.

    Args:
        noise: [3, B, max_new_tokens] uniforms in [0, 1), see `uniform_noise`.

    Raises:
        ValueError: a prompt is empty, or the noise has another shape.
        UserError: a model cannot be sampled exactly at so many positions.
    """
    models = [student]
    if interleaving is not None:
        interleaving = interleaving.of_rows(len(prompts))
        models.append(interleaving.teacher)
    pace = Pace(block_size, models)
    check_reach(models, prompts, noise[..., :max_new_tokens])
    width = 0 if interleaving is None else states_width(interleaving.teacher)
    states = torch.zeros(width, dtype=models[-1].dtype, device=student.device)
    rows = Rows.start(prompts, noise[..., :max_new_tokens], pace.largest, vocabulary.pad, states)
    done: list[Rows] = []
    cost = Cost(Stopwatch(student.device))
    with evaluating(*models):
        caches = [cached(model, rows.tokens.shape) for model in models]
        for model, phase in zip(caches, (Phase.SAMPLING, Phase.TEACHER), strict=False):
            model.begin(rows.tokens, rows.prompt_lengths)
            wait(student.device)
            cost.watch.lap(phase)
        if interleaving is not None:
            cost.teacher_tokens += sum(map(len, prompts))
            cost.teacher_passes += prefills(len(prompts))
        live = len(rows.alive)
        while live:
            live = _block(caches, rows, live, vocabulary, sampling, interleaving, pace, cost)
            rows = drop_finished(rows, live, caches, done)
    return gather([*done, rows], vocabulary, cost, interleaved=interleaving is not None)


def drop_finished(rows: Rows, live: int, caches: Sequence[CachedModel], done: list[Rows]) -> Rows:
    """The rows to go on with: finished ones move to `done` once they are worth the copy."""
    if (finished := rows.finished(live)) is None:
        return rows
    done.append(rows.take(finished))
    others = rows.alive.nonzero().squeeze(1)
    for model in caches:
        model.select(others)
    return rows.take(others)


def _block(
    caches: list[CachedModel],
    rows: Rows,
    live: int,
    vocabulary: Vocabulary,
    sampling: Sampling,
    interleaving: Interleaving | None,
    pace: Pace,
    cost: Cost,
) -> int:
    """One round of Algorithm 1: propose, verify, keep the leading accepted run, replace.

    live: rows that are not done; gives how many go on. A device is waited for where numbers are
    read: as the block starts, between the models, at the rejected tokens and as it ends; never
    per token.
    """
    gamma = pace.block_size
    positions = rows.known[:, None] + torch.arange(gamma, device=rows.known.device)  # [B, γ]
    used = int(positions.max())
    drawn_from = _propose(caches[0], rows, vocabulary, sampling, positions, used)
    usable = rows.usable(positions, vocabulary.eos)
    cost.student_tokens += live * gamma
    wait(positions.device)
    cost.watch.lap(Phase.SAMPLING)
    kept = usable
    if interleaving is not None:
        proposals = _verify(caches[1], rows, vocabulary, positions, used, drawn_from)
        accepted = _accept(rows, proposals, interleaving, positions)
        kept = usable & accepted.int().cumprod(-1).bool()
        _replace(rows, usable & ~kept, proposals, interleaving, positions)
        cost.teacher_passes += 1
        cost.teacher_tokens += live * gamma
    replaced = (usable & ~kept).any(-1)
    rows.advance(kept.sum(-1) + replaced, vocabulary.eos)
    counts = torch.stack([kept.sum(), replaced.sum(), rows.alive.sum()])
    stayed, changed, alive = map(int, counts.tolist())
    pace.learn(stayed, changed)
    cost.watch.lap(Phase.SAMPLING if interleaving is None else Phase.TEACHER)
    return alive


def _propose(
    student: CachedModel,
    rows: Rows,
    vocabulary: Vocabulary,
    sampling: Sampling,
    positions: Tensor,
    used: int,
) -> Tensor:
    """Write γ proposals behind each row's known tokens; give their distributions [B·γ, V]."""
    uniforms = rows.uniforms(Noise.STUDENT, positions)
    row = torch.arange(len(positions), device=positions.device)
    distributions = []
    for j in range(positions.shape[1]):
        at = positions[:, j] - 1  # states at i-1 predict token i
        states = student.states(rows.tokens[row, at][:, None], at[:, None], used)[:, 0]
        logits = allowed(head(student.model, states), vocabulary)
        probabilities = distribution(logits, sampling.temperature, sampling.top_p)
        rows.tokens[row, at + 1] = draw(probabilities, uniforms[:, j])
        distributions.append(probabilities)
    return torch.stack(distributions, 1).flatten(0, 1)


def _verify(
    teacher: CachedModel,
    rows: Rows,
    vocabulary: Vocabulary,
    positions: Tensor,
    used: int,
    drawn_from: Tensor,
) -> Proposals:
    """One teacher pass over the carried token and the first γ-1 proposals; its states are kept."""
    row = torch.arange(len(positions), device=positions.device)[:, None]
    states = teacher.states(rows.tokens.gather(1, positions - 1), positions - 1, used)
    rows.teacher_states[row, positions - 1] = states.to(rows.teacher_states.dtype)
    logits = allowed(head(teacher.model, states.flatten(0, 1)), vocabulary)  # [B·γ, V]
    tokens = rows.tokens.gather(1, positions).flatten()
    ranks = rank(logits, tokens)
    rows.ranks.scatter_(1, positions, ranks.view_as(positions))
    return Proposals(tokens, logits, ranks, drawn_from)


def _accept(
    rows: Rows, proposals: Proposals, interleaving: Interleaving, positions: Tensor
) -> Tensor:
    """[B, γ] what the rule says of each proposal at its own prefix."""
    rule = ACCEPT[interleaving.acceptance.rule]
    values = scheduled(interleaving.acceptance, interleaving.progress[rows.ids])  # [B]
    values = values[:, None].expand_as(positions).flatten()
    noise = rows.uniforms(Noise.ACCEPTANCE, positions).flatten()
    return rule(proposals, values, noise, interleaving.sampling).view_as(positions)


def _replace(
    rows: Rows, unkept: Tensor, proposals: Proposals, interleaving: Interleaving, positions: Tensor
) -> None:
    """Put the teacher's token where each row's first unkept proposal [B, γ] stands."""
    first = unkept & (unkept.int().cumsum(-1) == 1)
    row, column = first.nonzero(as_tuple=True)
    if not len(row):
        return
    flat = row * positions.shape[1] + column
    rejected = Proposals(*(value[flat] for value in vars(proposals).values()))
    at = positions[row, column]
    noise = rows.uniforms(Noise.TEACHER, positions)[row, column]
    rows.tokens[row, at] = replacement(
        interleaving.acceptance, rejected, interleaving.sampling, noise
    )
    rows.replaced[row, at] = True


def allowed(logits: Tensor, vocabulary: Vocabulary) -> Tensor:
    """[N, rows of the embedding] -> [N, V]: no padding rows, no forbidden tokens."""
    cut = logits[:, : vocabulary.size]
    if not vocabulary.forbidden:
        return cut
    return cut.index_fill(1, ids_on(vocabulary.forbidden, cut.device), -torch.inf)
