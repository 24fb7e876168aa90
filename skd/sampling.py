"""Interleaved sampling (paper, Algorithm 1) in blocks, and plain sampling by the same loop.

The student proposes γ tokens, the teacher scores them in one pass, the leading accepted
run is kept, the first rejected token is replaced by the teacher's, the rest is thrown
away. There is no bonus token, so γ changes the cost and never the distribution. Each
token is a function of its prefix and of the uniforms of its own (row, position), so the
emitted sequences do not depend on γ, on the batch around a row or on its order: that is
the oracle the tests hold this file against. Knows ids only: no text, losses or gradients.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedModel

from skd.acceptance import ACCEPT, Proposals, replacement, scheduled
from skd.cache import CachedModel
from skd.config import Acceptance, Sampling
from skd.logits import distribution, draw, rank
from skd.sequences import Batch, Vocabulary, pad

# Dropping finished rows from both caches costs a copy of the live ones.
_COMPACT_BELOW = 0.8


@dataclass(frozen=True)
class Teacher:
    """The teacher's part in interleaved sampling."""

    model: PreTrainedModel
    acceptance: Acceptance
    sampling: Sampling
    progress: float = 0.0  # share of the run done, for scheduled rules


@dataclass
class Rollout:
    """Sampled responses and what they cost.

    batch     prompts and responses, rows in the order given; `replaced` marks the teacher's tokens
    ranks     [B, L] the teacher's rank of the proposal at each response token; -1: not judged
    stopped   [B] True where an end-of-sequence token ended the response within the budget
    """

    batch: Batch
    ranks: Tensor
    stopped: Tensor
    student_tokens: int = 0  # proposed by live rows, thrown-away ones included
    teacher_tokens: int = 0  # scored for live rows
    teacher_passes: int = 0

    @property
    def accepted(self) -> int:
        return self.batch.response_tokens - self.replacements

    @property
    def replacements(self) -> int:
        return 0 if self.batch.replaced is None else int(self.batch.replaced.sum())


@dataclass
class _State:
    """The live rows. Every tensor has one row per live sequence."""

    ids: Tensor  # [B] row in the caller's order
    tokens: Tensor  # [B, slots]
    known: Tensor  # [B] prompt tokens and emitted tokens
    prompt_lengths: Tensor  # [B]
    alive: Tensor  # [B]
    replaced: Tensor  # [B, slots]
    ranks: Tensor  # [B, slots]
    noise: Tensor  # [3, B, max_new_tokens] student, teacher, acceptance
    counts: dict[str, int] = field(
        default_factory=lambda: {"student_tokens": 0, "teacher_tokens": 0, "teacher_passes": 0}
    )

    def uniforms(self, kind: int, positions: Tensor) -> Tensor:
        """[B, T] uniforms of response tokens at `positions` [B, T]."""
        index = (positions - self.prompt_lengths[:, None]).clamp_max(self.noise.shape[-1] - 1)
        return self.noise[kind].gather(1, index)


_STUDENT, _TEACHER, _ACCEPT = range(3)


@torch.no_grad()
def sample(
    student: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    vocabulary: Vocabulary,
    sampling: Sampling,
    max_new_tokens: int,
    noise: Tensor,
    teacher: Teacher | None = None,
    block_size: int = 4,
) -> Rollout:
    """Sample one response per prompt, the teacher correcting proposals if there is one.

    noise: [3, B, max_new_tokens] uniforms in [0, 1), see `uniform_noise`. Both models are
    in evaluation mode meanwhile. Without a teacher this is plain sampling.
    """
    if not all(len(prompt) for prompt in prompts):
        raise ValueError("a prompt is empty: there is no position to predict the first token from")
    models = [student] if teacher is None else [student, teacher.model]
    device = student.device
    tokens, lengths = pad(prompts, vocabulary.pad)
    slots = tokens.shape[1] + max_new_tokens + block_size
    state = _start(tokens.to(device), lengths.to(device), slots, vocabulary.pad, noise.to(device))
    with evaluating(*models):
        cached = [CachedModel(model, len(prompts), slots) for model in models]
        _prefill(cached, state, tokens.shape[1])
        done: list[_State] = []
        while bool(state.alive.any()):
            _block(cached, state, vocabulary, sampling, teacher, block_size)
            state = _compact(cached, state, done)
    return _gather([*done, state], vocabulary, interleaved=teacher is not None)


def uniform_noise(rows: int, max_new_tokens: int, source: torch.Generator) -> Tensor:
    """[3, rows, max_new_tokens]: the student's, the teacher's and the acceptance uniforms."""
    return torch.rand(3, rows, max_new_tokens, generator=source, dtype=torch.float64)


def _start(tokens: Tensor, lengths: Tensor, slots: int, pad_id: int, noise: Tensor) -> _State:
    count = len(tokens)
    buffer = tokens.new_full((count, slots), pad_id)
    buffer[:, : tokens.shape[1]] = tokens
    return _State(
        ids=torch.arange(count, device=tokens.device),
        tokens=buffer,
        known=lengths.clone(),
        prompt_lengths=lengths,
        alive=torch.ones_like(lengths, dtype=torch.bool),
        replaced=torch.zeros_like(buffer, dtype=torch.bool),
        ranks=torch.full_like(buffer, -1),
        noise=noise,
    )


def _prefill(cached: list[CachedModel], state: _State, width: int) -> None:
    """Fill both caches from the prompts; slots behind a short prompt are overwritten later."""
    positions = torch.arange(width, device=state.tokens.device).expand(len(state.tokens), -1)
    for model in cached:
        model.logits(state.tokens[:, :width], positions, used=width, keep=1)


def _block(
    cached: list[CachedModel],
    state: _State,
    vocabulary: Vocabulary,
    sampling: Sampling,
    teacher: Teacher | None,
    block_size: int,
) -> None:
    """One round of Algorithm 1: propose, verify, keep the leading accepted run, replace."""
    positions = state.known[:, None] + torch.arange(block_size, device=state.known.device)  # [B, γ]
    used = int(positions.max())
    student_probabilities = _propose(cached[0], state, vocabulary, sampling, positions, used)
    in_budget = positions - state.prompt_lengths[:, None] < state.noise.shape[-1]
    usable = _up_to_first(state, vocabulary.eos, positions) & in_budget & state.alive[:, None]
    kept = usable
    if teacher is not None:
        judged = _verify(
            cached[1], state, vocabulary, teacher, positions, used, student_probabilities
        )
        kept = usable & judged.accepted.int().cumprod(-1).bool()
        _replace(state, usable & ~kept, judged, teacher, positions)
        state.counts["teacher_passes"] += 1
        state.counts["teacher_tokens"] += int(state.alive.sum()) * block_size
    state.counts["student_tokens"] += int(state.alive.sum()) * block_size
    replaced = (usable & ~kept).any(-1)
    state.known = state.known + kept.sum(-1) + replaced
    _finish(state, vocabulary.eos)


def _propose(
    student: CachedModel,
    state: _State,
    vocabulary: Vocabulary,
    sampling: Sampling,
    positions: Tensor,
    used: int,
) -> list[Tensor]:
    """Write γ proposals behind each row's known tokens; give their distributions, γ × [B, V]."""
    uniforms = state.uniforms(_STUDENT, positions)
    rows = torch.arange(len(positions), device=positions.device)
    distributions = []
    for j in range(positions.shape[1]):
        at = positions[:, j] - 1  # logits at i-1 predict token i
        logits = student.logits(state.tokens[rows, at][:, None], at[:, None], used)[:, 0]
        probabilities = distribution(
            _allowed(logits, vocabulary), sampling.temperature, sampling.top_p
        )
        state.tokens[rows, at + 1] = draw(probabilities, uniforms[:, j])
        distributions.append(probabilities)
    return distributions


@dataclass(frozen=True)
class _Judged:
    proposals: Proposals  # [B·γ]
    accepted: Tensor  # [B, γ]


def _verify(
    model: CachedModel,
    state: _State,
    vocabulary: Vocabulary,
    teacher: Teacher,
    positions: Tensor,
    used: int,
    student_probabilities: list[Tensor],
) -> _Judged:
    """One teacher pass over the carried token and the first γ-1 proposals."""
    logits = model.logits(state.tokens.gather(1, positions - 1), positions - 1, used)
    logits = _allowed(logits, vocabulary).flatten(0, 1)  # [B·γ, V]
    proposed = state.tokens.gather(1, positions).flatten()
    ranks = rank(logits, proposed)
    proposals = Proposals(
        proposed, logits, ranks, torch.stack(student_probabilities, 1).flatten(0, 1)
    )
    rule = ACCEPT[teacher.acceptance.rule]
    value = scheduled(teacher.acceptance, teacher.progress)
    noise = state.uniforms(_ACCEPT, positions).flatten()
    accepted = rule(proposals, value, noise, teacher.sampling).view_as(positions)
    state.ranks.scatter_(1, positions, ranks.view_as(positions))
    return _Judged(proposals, accepted)


def _replace(
    state: _State, unkept: Tensor, judged: _Judged, teacher: Teacher, positions: Tensor
) -> None:
    """Put the teacher's token where each row's first unkept proposal [B, γ] stands."""
    first = unkept & (unkept.int().cumsum(-1) == 1)
    rows, columns = first.nonzero(as_tuple=True)
    if not len(rows):
        return
    flat = rows * positions.shape[1] + columns
    rejected = Proposals(*(value[flat] for value in vars(judged.proposals).values()))
    at = positions[rows, columns]
    noise = state.uniforms(_TEACHER, positions)[rows, columns]
    state.tokens[rows, at] = replacement(teacher.acceptance, rejected, teacher.sampling, noise)
    state.replaced[rows, at] = True


def _allowed(logits: Tensor, vocabulary: Vocabulary) -> Tensor:
    """[..., rows of the embedding] -> [..., V]: no padding rows, no forbidden tokens."""
    cut = logits[..., : vocabulary.size]
    if not vocabulary.forbidden:
        return cut
    cut = cut.clone()
    cut[..., list(vocabulary.forbidden)] = -torch.inf
    return cut


def _up_to_first(state: _State, eos: tuple[int, ...], positions: Tensor) -> Tensor:
    """[B, γ] True up to and including the first end-of-sequence proposal."""
    ended = _is_any(state.tokens.gather(1, positions), eos).int()
    return ended.cumsum(-1) - ended == 0


def _is_any(tokens: Tensor, ids: tuple[int, ...]) -> Tensor:
    return torch.isin(tokens, torch.tensor(ids, device=tokens.device))


def _finish(state: _State, eos: tuple[int, ...]) -> None:
    last = state.tokens.gather(1, (state.known - 1)[:, None])[:, 0]
    emitted = state.known - state.prompt_lengths
    ended = _is_any(last, eos) & (emitted > 0)
    state.alive = state.alive & ~ended & (emitted < state.noise.shape[-1])


def _compact(cached: list[CachedModel], state: _State, done: list[_State]) -> _State:
    """Move finished rows to `done` once they are worth the copy of the live ones' caches."""
    alive = int(state.alive.sum())
    if alive == 0 or alive > _COMPACT_BELOW * len(state.alive):
        return state
    keep = state.alive.nonzero().squeeze(1)
    done.append(_select(state, (~state.alive).nonzero().squeeze(1), counts={}))
    for model in cached:
        model.cache.select(keep)
    return _select(state, keep, counts=state.counts)


def _select(state: _State, rows: Tensor, counts: dict[str, int]) -> _State:
    fields = {k: v[rows] for k, v in vars(state).items() if k not in ("noise", "counts")}
    return _State(**fields, noise=state.noise[:, rows], counts=counts)


def _gather(parts: list[_State], vocabulary: Vocabulary, interleaved: bool) -> Rollout:
    """Finished rows in the caller's order, cut to the longest, what lies behind them padded."""
    order = torch.cat([part.ids for part in parts]).argsort()

    def joined(name: str) -> Tensor:
        return torch.cat([getattr(part, name) for part in parts])[order]

    lengths = joined("known")
    width = int(lengths.max())
    past = torch.arange(width, device=lengths.device) >= lengths[:, None]
    tokens = joined("tokens")[:, :width].masked_fill(past, vocabulary.pad)
    prompt_lengths = joined("prompt_lengths")
    last = tokens.gather(1, (lengths - 1)[:, None])[:, 0]
    replaced = joined("replaced")[:, :width] & ~past if interleaved else None
    return Rollout(
        batch=Batch(tokens, prompt_lengths, lengths, replaced),
        ranks=joined("ranks")[:, :width].masked_fill(past, -1),
        stopped=_is_any(last, vocabulary.eos) & (lengths > prompt_lengths),
        **parts[-1].counts,
    )


@contextmanager
def evaluating(*models: PreTrainedModel) -> Iterator[None]:
    """Dropout off in these models; each one's mode is restored whatever happens."""
    modes = [model.training for model in models]
    for model in models:
        model.eval()
    try:
        yield
    finally:
        for model, mode in zip(models, modes, strict=True):
            model.train(mode)
