"""The rows of a rollout while they are sampled: where each stands, and its random numbers.

Finished rows leave, so that caches and passes hold live ones only; `gather` puts them all
back in the caller's order. Knows nothing of models, acceptance or distributions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from skd.engine.meter import Stopwatch
from skd.engine.sequences import TokenBatch, Vocabulary, ids_on, on_device, pad

# Share of live rows below which the finished ones are dropped. It costs a copy of the live rows'
# caches, and on CUDA new graphs, where an idle row costs next to nothing.
COMPACT_BELOW = {"cpu": 0.8, "cuda": 0.5}


class Noise(IntEnum):
    """What a uniform of a (row, position) decides."""

    STUDENT = 0  # the student's draw
    TEACHER = 1  # the teacher's draw
    ACCEPTANCE = 2  # whether a proposal is accepted, under a random rule


@dataclass
class Cost:
    # Of the phases SAMPLING and TEACHER
    watch: Stopwatch
    # Proposed by live rows, thrown-away ones included
    student_tokens: int = 0
    # Tokens that went through it: prompts, and proposals of live rows
    teacher_tokens: int = 0
    teacher_passes: int = 0


@dataclass(frozen=True)
class Rollout:
    """Sampled responses and what they cost.

    batch     prompts and responses, rows in the order given; `replaced` marks the teacher's tokens
    ranks     [B, L] the teacher's rank of the proposal at each response token; -1: not judged
    stopped   [B] True where an end-of-sequence token ended the response within the budget
    """

    batch: TokenBatch
    ranks: Tensor
    stopped: Tensor
    cost: Cost

    @property
    def accepted(self) -> int:
        return self.batch.response_tokens - self.replacements

    @property
    def replacements(self) -> int:
        return 0 if self.batch.replaced is None else int(self.batch.replaced.sum())


@dataclass
class Rows:
    """Sequences that grow. Every tensor has one row per sequence, `noise` along its second axis."""

    ids: Tensor  # [B] row in the caller's order
    tokens: Tensor  # [B, slots]
    known: Tensor  # [B] prompt tokens and emitted tokens
    prompt_lengths: Tensor  # [B]
    alive: Tensor  # [B]
    replaced: Tensor  # [B, slots]
    ranks: Tensor  # [B, slots]
    teacher_states: Tensor  # [B, slots, d] final hidden states, at the position before each token
    noise: Tensor  # [3, B, max_new_tokens] uniforms

    @staticmethod
    def start(
        prompts: Sequence[Sequence[int]], noise: Tensor, spare: int, pad_id: int, states: Tensor
    ) -> Rows:
        """Prompts alone. `spare` slots take proposals beyond the budget; `states`: [d] of zeros."""
        if noise.ndim != 3 or noise.shape[:2] != (len(Noise), len(prompts)):
            raise ValueError(
                f"the noise has the shape {tuple(noise.shape)}; expected "
                f"({len(Noise)}, {len(prompts)}, max_new_tokens), as `uniform_noise` makes it"
            )
        if not all(len(prompt) for prompt in prompts):
            raise ValueError("a prompt is empty: no position would predict its first token")
        tokens, lengths = pad(prompts, pad_id)
        tokens, lengths, noise = (on_device(x, states.device) for x in (tokens, lengths, noise))
        slots = tokens.shape[1] + noise.shape[-1] + spare
        buffer = tokens.new_full((len(tokens), slots), pad_id)
        buffer[:, : tokens.shape[1]] = tokens
        return Rows(
            ids=torch.arange(len(tokens), device=tokens.device),
            tokens=buffer,
            known=lengths.clone(),
            prompt_lengths=lengths,
            alive=torch.ones_like(lengths, dtype=torch.bool),
            replaced=torch.zeros_like(buffer, dtype=torch.bool),
            ranks=torch.full_like(buffer, -1),
            teacher_states=states.repeat(*buffer.shape, 1),
            noise=noise,
        )

    def uniforms(self, kind: Noise, positions: Tensor) -> Tensor:
        """[B, T] uniforms of response tokens at `positions` [B, T]."""
        index = (positions - self.prompt_lengths[:, None]).clamp_max(self.noise.shape[-1] - 1)
        return self.noise[kind].gather(1, index)

    def usable(self, positions: Tensor, eos: tuple[int, ...]) -> Tensor:
        """[B, T] True at the proposals of live rows within the budget, up to the first end."""
        ended = is_any(self.tokens.gather(1, positions), eos).int()
        before_end = ended.cumsum(-1) - ended == 0
        in_budget = positions - self.prompt_lengths[:, None] < self.noise.shape[-1]
        return before_end & in_budget & self.alive[:, None]

    def advance(self, count: Tensor, eos: tuple[int, ...]) -> None:
        """`count` [B] more tokens are known; rows that ended or used their budget are done."""
        self.known = self.known + count
        last = self.tokens.gather(1, (self.known - 1)[:, None])[:, 0]
        emitted = self.known - self.prompt_lengths
        ended = is_any(last, eos) & (emitted > 0)
        self.alive = self.alive & ~ended & (emitted < self.noise.shape[-1])

    def finished(self, alive: int) -> Tensor | None:
        """[n] rows that are done, once they are worth the copy of the others; None: not yet."""
        below = COMPACT_BELOW.get(self.alive.device.type, COMPACT_BELOW["cpu"])
        if alive == 0 or alive > below * len(self.alive):
            return None
        return (~self.alive).nonzero().squeeze(1)

    def take(self, rows: Tensor) -> Rows:
        fields = {name: value[rows] for name, value in vars(self).items() if name != "noise"}
        return Rows(**fields, noise=self.noise[:, rows])


def gather(parts: Sequence[Rows], vocabulary: Vocabulary, cost: Cost, interleaved: bool) -> Rollout:
    """All rows in the caller's order, cut to the longest, what lies behind them padded."""
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
    states = joined("teacher_states")[:, :width] if interleaved else None
    return Rollout(
        batch=TokenBatch(tokens, prompt_lengths, lengths, replaced, states),
        ranks=joined("ranks")[:, :width].masked_fill(past, -1),
        stopped=is_any(last, vocabulary.eos) & (lengths > prompt_lengths),
        cost=cost,
    )


def uniform_noise(rows: int, max_new_tokens: int, source: torch.Generator) -> Tensor:
    """[3, rows, max_new_tokens]: the student's, the teacher's and the acceptance uniforms."""
    return torch.rand(3, rows, max_new_tokens, generator=source, dtype=torch.float64)


def is_any(tokens: Tensor, ids: tuple[int, ...]) -> Tensor:
    return torch.isin(tokens, ids_on(ids, tokens.device))
