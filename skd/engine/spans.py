"""What two tokenizers have in common, in ids: spans that both cut out of a text, and like tokens.

A teacher that reads other ids than its student reads the same text. Wherever a token of each ends
at the same place, a span ends. This module knows ids and counts: no text, no models, no losses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from skd.engine.sequences import TokenBatch, TokenExample


class Mark(IntEnum):
    """What a student's token is in the spans of its row."""

    NONE = 0  # in no span: prompts, padding, what a cut left of a character
    ALIKE = 1  # a span of one token of each, of one class
    OPENS = 2  # the first token of any other span
    GOES_ON = 3  # in such a span, behind its first token


@dataclass(frozen=True)
class Translation:
    """An example as the teacher reads it.

    Span k ends behind the student's response token `student_ends[k]` - 1 and behind the teacher's
    `teacher_ends[k]` - 1. Tokens behind the last span are in none.
    """

    example: TokenExample
    student_ends: tuple[int, ...]
    teacher_ends: tuple[int, ...]


@dataclass(frozen=True)
class Classes:
    """Tokens of both vocabularies that begin with the same text, by class.

    student  [V of the student] class of each id; `count`: of none
    teacher  [V of the teacher] likewise
    """

    student: Tensor
    teacher: Tensor
    count: int

    def to(self, device: torch.device) -> Classes:
        return Classes(self.student.to(device), self.teacher.to(device), self.count)


@dataclass(frozen=True)
class Spans:
    """The spans of N response tokens.

    marks        [N] as `Mark`
    likelihoods  [N] at tokens that open a span: the teacher's log-probability of its text
    """

    marks: Tensor
    likelihoods: Tensor

    @staticmethod
    def of(batch: TokenBatch) -> Spans:
        """Of a batch that a teacher has read."""
        assert batch.marks is not None
        assert batch.likelihoods is not None
        mask = batch.response_mask
        return Spans(batch.marks[mask], batch.likelihoods[mask])

    def part(self, tokens: slice | Tensor) -> Spans:
        """Of some of the tokens, which are whole spans."""
        return Spans(self.marks[tokens], self.likelihoods[tokens])

    def chunks(self, size: int) -> list[slice]:
        """The tokens in parts of whole spans: each ends at the first end behind `size` tokens."""
        begins = (self.marks != Mark.GOES_ON).nonzero().flatten().tolist()
        cuts = [0]
        for begin in begins:
            if begin - cuts[-1] >= size:
                cuts.append(begin)
        ends = [*cuts[1:], len(self.marks)]
        return [slice(*both) for both in zip(cuts, ends, strict=True)]


@dataclass(frozen=True)
class Cut:
    """A row's S spans, beside its student's and its teacher's response tokens.

    begins          [S] the student's first token of each
    teacher_begins  [S] the teacher's
    teacher_spans   [M] the span of each of the teacher's tokens
    alike           [S] True at spans of one token of each, of one class
    marks           [N] of the student's tokens, as `Mark`
    """

    begins: Tensor
    teacher_begins: Tensor
    teacher_spans: Tensor
    alike: Tensor
    marks: Tensor

    @staticmethod
    def of(read: Translation, student: Tensor, teacher: Tensor, classes: Classes) -> Cut:
        """student, teacher: [N], [M] the response tokens of each."""
        begins, sizes = _begins_and_sizes(read.student_ends, student.device)
        teacher_begins, teacher_sizes = _begins_and_sizes(read.teacher_ends, student.device)
        own = classes.student[student[begins]]
        same = (own == classes.teacher[teacher[teacher_begins]]) & (own < classes.count)
        alike = same & (sizes == 1) & (teacher_sizes == 1)
        marks = torch.full_like(student, Mark.NONE)
        marks[: int(sizes.sum())] = Mark.GOES_ON
        marks[begins] = torch.where(alike, int(Mark.ALIKE), int(Mark.OPENS))
        spans = torch.arange(len(begins), device=student.device)
        return Cut(begins, teacher_begins, spans.repeat_interleave(teacher_sizes), alike, marks)


def _begins_and_sizes(ends: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
    stops = torch.tensor(ends, dtype=torch.long, device=device)
    sizes = stops.diff(prepend=stops.new_zeros(1))
    return stops - sizes, sizes


def common_ends(
    student: Sequence[int], teacher: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """How many tokens of each stand before every place of the text where both have an end.

    Each sequence gives the place in the text where its tokens end; -1: within a character or
    before any text. Of several tokens that end at one place the last one counts.
    """
    ours, theirs = (
        {place: count for count, place in enumerate(places, 1) if place > 0}
        for places in (student, teacher)
    )
    places = sorted(ours.keys() & theirs.keys())
    return tuple(ours[place] for place in places), tuple(theirs[place] for place in places)
