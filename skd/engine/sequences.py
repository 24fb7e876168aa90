"""Batches of token sequences and the one causal shift.

Convention, here and nowhere else: rows are RIGHT-padded, so a token's slot is its
position; the logits at position i-1 predict the token at position i. This module knows
ids only: no text, no models, no losses.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor


@dataclass(frozen=True)
class Vocabulary:
    """What the two models of a pair share, in ids.

    `size` counts the tokenizer's tokens: embedding rows beyond it are padding (Qwen2 pads
    one tokenizer to 152064 and to 151936 rows) and never enter a softmax.
    """

    size: int
    eos: tuple[int, ...]  # any of them ends a response
    pad: int
    forbidden: tuple[int, ...]  # never sampled: padding and template marks


@dataclass(frozen=True)
class TokenExample:
    """One training row. `response` ends with an end-of-sequence id unless it was cut."""

    prompt: tuple[int, ...]
    response: tuple[int, ...]


@dataclass(frozen=True)
class TokenBatch:
    """Prompts with responses, right-padded.

    tokens          [B, L] int64
    prompt_lengths  [B]    tokens before the response
    lengths         [B]    prompt and response, the end-of-sequence token included
    replaced        [B, L] True at response tokens that the teacher put in; None: no such tokens
    teacher_states  [B, L, d] the teacher's, which mean something at `predictors`; None: not made
    otherwise       [B]    True at rows that take a method's second loss; None: all take the first
    marks           [B, L] the spans of a teacher that reads other ids (`skd.engine.spans.Mark`)
    likelihoods     [B, L] what it says of those spans (`skd.engine.spans.Spans`)
    """

    tokens: Tensor
    prompt_lengths: Tensor
    lengths: Tensor
    replaced: Tensor | None = None
    teacher_states: Tensor | None = None
    otherwise: Tensor | None = None
    marks: Tensor | None = None
    likelihoods: Tensor | None = None

    def __post_init__(self) -> None:
        rows, slots = self.tokens.shape
        wanted: dict[str, tuple[int, ...]] = {
            "prompt_lengths": (rows,),
            "lengths": (rows,),
            "replaced": (rows, slots),
            "teacher_states": (rows, slots),
            "otherwise": (rows,),
            "marks": (rows, slots),
            "likelihoods": (rows, slots),
        }
        for name, shape in wanted.items():
            tensor = getattr(self, name)
            if tensor is not None and tuple(tensor.shape[: len(shape)]) != shape:
                raise ValueError(
                    f"{name} has the shape {tuple(tensor.shape)} beside tokens of {rows, slots}"
                )

    @property
    def response_mask(self) -> Tensor:
        """[B, L] True at the tokens that enter the loss: no prompt, no padding."""
        slots = torch.arange(self.tokens.shape[1], device=self.tokens.device)
        return (slots >= self.prompt_lengths[:, None]) & (slots < self.lengths[:, None])

    @property
    def predictors(self) -> Tensor:
        """[B, L] True at the positions whose logits predict a response token (the shift)."""
        mask = self.response_mask
        return torch.cat([mask[:, 1:], torch.zeros_like(mask[:, :1])], dim=1)

    @property
    def targets(self) -> Tensor:
        """[N] response tokens, in the row-major order of `predictors`."""
        return self.tokens[self.response_mask]

    @property
    def response_tokens(self) -> int:
        return int((self.lengths - self.prompt_lengths).sum())

    def responses(self) -> list[tuple[int, ...]]:
        """Each row's response as ids."""
        return [example.response for example in self.examples()]

    def examples(self) -> list[TokenExample]:
        """Each row's prompt and response as ids."""
        spans = zip(self.prompt_lengths.tolist(), self.lengths.tolist(), strict=True)
        return [
            TokenExample(tuple(ids[:start]), tuple(ids[start:stop]))
            for ids, (start, stop) in zip(self.tokens.tolist(), spans, strict=True)
        ]

    def take(self, rows: slice | list[int]) -> TokenBatch:
        """These rows, with the padding that only other rows needed cut off."""
        longest = int(self.lengths[rows].max())
        return TokenBatch(
            self.tokens[rows, :longest],
            self.prompt_lengths[rows],
            self.lengths[rows],
            None if self.replaced is None else self.replaced[rows, :longest],
            None if self.teacher_states is None else self.teacher_states[rows, :longest],
            None if self.otherwise is None else self.otherwise[rows],
            None if self.marks is None else self.marks[rows, :longest],
            None if self.likelihoods is None else self.likelihoods[rows, :longest],
        )

    def split(self, size: int | None) -> list[TokenBatch]:
        """Micro-batches of at most `size` rows; None: one."""
        count = len(self.tokens)
        size = size or count
        return [self.take(slice(i, i + size)) for i in range(0, count, size)]

    def to(self, device: torch.device) -> TokenBatch:
        moved = {
            n: on_device(value, device) for n, value in vars(self).items() if value is not None
        }
        return dataclasses.replace(self, **moved)


def on_device(values: Tensor, device: torch.device) -> Tensor:
    """Through pinned memory to an accelerator, so that the copy runs beside the host's work."""
    if device.type != "cuda" or values.device.type != "cpu":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


@lru_cache(maxsize=32)
def ids_on(ids: tuple[int, ...], device: torch.device) -> Tensor:
    """[n] kept on the device: a copy for each token sampled would wait for it each time."""
    return torch.tensor(ids, dtype=torch.long, device=device)


def pad(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Right-pad to the longest row: ([B, L], [B] lengths)."""
    lengths = torch.tensor([len(row) for row in rows])
    tokens = torch.full((len(rows), max(1, int(lengths.max()))), pad_id)
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = torch.tensor(row, dtype=torch.long)
    return tokens, lengths


def collate(examples: Sequence[TokenExample], pad_id: int) -> TokenBatch:
    tokens, lengths = pad([e.prompt + e.response for e in examples], pad_id)
    return TokenBatch(tokens, torch.tensor([len(e.prompt) for e in examples]), lengths)
