"""Speculative decoding: a student drafts for its teacher, and the output is the teacher's.

Without a draft each pass gives one token, by the same draws: plain decoding.

Unlike interleaved sampling, every emitted token is one that the teacher would have emitted, so the
token behind a fully accepted draft comes free with the pass that verified it. Knows ids only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from skd.engine.acceptance import Proposals, ratio, replacement
from skd.engine.cache import CachedModel, prefills
from skd.engine.cached_sources import cached
from skd.engine.checking import check_reach
from skd.engine.logits import distribution, draw
from skd.engine.meter import Stopwatch
from skd.engine.pace import Pace
from skd.engine.rollout import Cost, Noise, Rollout, Rows, gather
from skd.engine.sampling import allowed, drop_finished
from skd.engine.sequences import Vocabulary
from skd.engine.settings import Acceptance, Sampling
from skd.engine.states import evaluating, head

Rule = Literal["match", "rejection"]


@dataclass
class DraftCount:
    """How drafts fared, over all rows."""

    # Rows × rounds: drafts that were verified
    blocks: int = 0
    # Tokens proposed in them
    drafted: int = 0
    # Of them accepted
    kept: int = 0


@dataclass(frozen=True)
class Decoded:
    """Responses of the teacher, and how the drafts fared."""

    # The rows in the order given; `ranks` and `replaced` are not filled
    rollout: Rollout
    drafts: DraftCount

    @property
    def acceptance_length(self) -> float:
        """Emitted tokens per teacher pass of a row; plain decoding has 1."""
        return self.rollout.batch.response_tokens / max(1, self.drafts.blocks)


@torch.no_grad()
def speculate(
    draft: PreTrainedModel | None,
    teacher: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    vocabulary: Vocabulary,
    sampling: Sampling,
    max_new_tokens: int,
    noise: Tensor,
    rule: Rule = "match",
    block_size: int | Literal["auto"] = "auto",
    grown: Callable[[Rows], object] = lambda _: None,
) -> Decoded:
    """One response of `teacher` per prompt.

    match      both models draw with the same Gumbel noise and a draft is accepted where they agree:
               the output IS what plain sampling by the teacher with that noise gives
    rejection  Leviathan et al. (2211.17192): the output follows the teacher's distribution

    At temperature 0 both are greedy decoding.

    Args:
        draft: None: the teacher decodes alone.
        noise: [3, B, max_new_tokens], see `uniform_noise`.
        grown: called with the unfinished and the newly finished rows after each teacher pass.

    Raises:
        ValueError: a prompt is empty, or the noise has another shape.
        UserError: a model cannot be sampled exactly at so many positions.
    """
    models = [teacher] if draft is None else [draft, teacher]
    pace = Pace(block_size, models)
    nothing = torch.zeros(0, dtype=teacher.dtype, device=teacher.device)
    spare = pace.largest + 1
    check_reach(models, prompts, noise[..., :max_new_tokens])
    rows = Rows.start(prompts, noise[..., :max_new_tokens], spare, vocabulary.pad, nothing)
    done: list[Rows] = []
    cost, drafts = Cost(Stopwatch(teacher.device)), DraftCount()
    with evaluating(*models):
        caches = [cached(model, rows.tokens.shape) for model in models]
        for model in caches:
            model.begin(rows.tokens, rows.prompt_lengths)
        cost.teacher_passes += prefills(len(prompts))
        cost.teacher_tokens += sum(map(len, prompts))
        live = len(rows.alive)
        while live:
            live = _block(caches, rows, live, vocabulary, sampling, rule, pace, cost, drafts)
            grown(rows)
            rows = drop_finished(rows, live, caches, done)
    return Decoded(gather([*done, rows], vocabulary, cost, interleaved=False), drafts)


def _block(
    caches: Sequence[CachedModel],
    rows: Rows,
    live: int,
    vocabulary: Vocabulary,
    sampling: Sampling,
    rule: Rule,
    pace: Pace,
    cost: Cost,
    drafts: DraftCount,
) -> int:
    """One round: γ drafted tokens, one teacher pass, the leading accepted run and one token more.

    The token behind that run is the teacher's: what stands instead of the first rejected draft, or
    the bonus token behind a draft that was kept whole.

    live: rows that are not done; gives how many go on.
    """
    *drafters, judge = caches
    gamma = pace.block_size if drafters else 0
    steps = torch.arange(gamma + 1, device=rows.known.device)
    positions = rows.known[:, None] + steps  # [B, γ+1]: the last one is the bonus token's
    drawn_from = _draft(drafters, rows, vocabulary, sampling, positions[:, :-1], rule)
    before = positions - 1  # states at i-1 predict token i
    states = judge.states(rows.tokens.gather(1, before), before, int(positions.max()))
    logits = allowed(head(judge.model, states.flatten(0, 1)), vocabulary)
    logits = logits.view(*positions.shape, -1)  # [B, γ+1, V]
    accepted, instead = RULES[rule](rows, positions, logits, drawn_from, sampling)
    agreed = accepted.int().cumprod(-1).sum(-1)[:, None]  # [B, 1] leading accepted drafts
    drafted = rows.tokens.gather(1, positions)
    rows.tokens.scatter_(1, positions, torch.where(steps < agreed, drafted, instead))
    emitted = rows.usable(positions, vocabulary.eos) & (steps <= agreed)
    kept = int((emitted & (steps < agreed)).sum())
    rows.advance(emitted.sum(-1), vocabulary.eos)
    pace.learn(kept, live)
    drafts.blocks, drafts.drafted = drafts.blocks + live, drafts.drafted + live * gamma
    drafts.kept += kept
    cost.student_tokens += live * gamma
    cost.teacher_passes += 1
    cost.teacher_tokens += live * (gamma + 1)
    return int(rows.alive.sum())


def _draft(
    drafters: Sequence[CachedModel],
    rows: Rows,
    vocabulary: Vocabulary,
    sampling: Sampling,
    positions: Tensor,
    rule: Rule,
) -> Tensor:
    """Write γ drafts behind each row's known tokens; give their distributions [B, γ, V].

    drafters: one, or none where γ is 0.
    """
    if not drafters:
        return torch.zeros(*positions.shape, vocabulary.size, device=positions.device)
    (drafter,) = drafters
    used = int(positions.max())
    first = rows.prompt_lengths[:, None] - 1
    distributions = []
    for j in range(positions.shape[1]):
        at = positions[:, j : j + 1] - 1
        if j == 0:  # a draft that was kept whole never read its own last token
            at = torch.cat([(at - 1).maximum(first), at], 1)
        states = drafter.states(rows.tokens.gather(1, at), at, used)[:, -1]
        logits = allowed(head(drafter.model, states), vocabulary)
        probabilities = distribution(logits, sampling.temperature, sampling.top_p)
        to = positions[:, j : j + 1]
        drawn = _DRAW[rule](rows, to, probabilities[:, None], sampling)
        rows.tokens.scatter_(1, to, drawn)
        distributions.append(probabilities)
    return torch.stack(distributions, 1)


# ---------------------------------------------------------------------- draws
def _gumbel_draw(rows: Rows, positions: Tensor, weights: Tensor, sampling: Sampling) -> Tensor:
    """[B, T] the arguments of the largest log weight + Gumbel noise; weights [B, T, V].

    As the smallest exponential/weight. A position's exponentials grow from its own uniform, so
    they are the same for both models and whatever the block.
    """
    if sampling.temperature == 0.0:
        return weights.argmax(-1)
    seeds = (rows.uniforms(Noise.STUDENT, positions) * 2**53).long().flatten().tolist()
    exponentials = torch.stack([_exponentials(seed, weights.shape[-1]) for seed in seeds])
    return (weights / exponentials.view_as(weights).to(weights)).argmax(-1)


def _exponentials(seed: int, size: int) -> Tensor:
    source = torch.Generator().manual_seed(seed)
    return torch.empty(size, dtype=torch.float64).exponential_(generator=source)


def _inverse_draw(rows: Rows, positions: Tensor, weights: Tensor, _: Sampling) -> Tensor:
    uniforms = rows.uniforms(Noise.STUDENT, positions)
    return draw(weights.flatten(0, 1), uniforms.flatten()).view_as(positions)


_DRAW: dict[Rule, Callable[[Rows, Tensor, Tensor, Sampling], Tensor]] = {
    "match": _gumbel_draw,
    "rejection": _inverse_draw,
}


# ---------------------------------------------------------------------- rules
def _match(
    rows: Rows, positions: Tensor, logits: Tensor, _: Tensor, sampling: Sampling
) -> tuple[Tensor, Tensor]:
    """-> [B, γ] accepted, [B, γ+1] the teacher's own token at each position."""
    weights = distribution(logits, sampling.temperature, sampling.top_p)
    tokens = _gumbel_draw(rows, positions, weights, sampling)
    return rows.tokens.gather(1, positions[:, :-1]) == tokens[:, :-1], tokens


def _rejection(
    rows: Rows, positions: Tensor, logits: Tensor, drawn_from: Tensor, sampling: Sampling
) -> tuple[Tensor, Tensor]:
    """-> [B, γ] accepted, [B, γ+1] what stands there if it is the first that is not."""
    drafted = positions[:, :-1]
    tokens = rows.tokens.gather(1, drafted).flatten()
    proposals = Proposals(
        tokens, logits[:, :-1].flatten(0, 1), tokens.new_zeros(()), drawn_from.flatten(0, 1)
    )
    uniforms = rows.uniforms(Noise.ACCEPTANCE, drafted).flatten()
    accepted = ratio(proposals, torch.ones_like(uniforms), uniforms, sampling)
    standard = Acceptance("ratio", 1.0)
    uniforms = rows.uniforms(Noise.TEACHER, positions)
    instead = replacement(standard, proposals, sampling, uniforms[:, :-1].flatten())
    last = distribution(logits[:, -1], sampling.temperature, sampling.top_p)
    bonus = draw(last, uniforms[:, -1])
    return accepted.view_as(drafted), torch.cat([instead.view_as(drafted), bonus[:, None]], 1)


RULES: dict[Rule, Callable[[Rows, Tensor, Tensor, Tensor, Sampling], tuple[Tensor, Tensor]]] = {
    "match": _match,
    "rejection": _rejection,
}
