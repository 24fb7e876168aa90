"""Distillation across two tokenizers: what the teacher says, and the loss, span by span.

A span is text that both tokenizers cut out, as in TRL's GOLD trainer. Where it is one token of
each, the divergence compares the models over classes of tokens that begin with the same text, and
tokens of no class are compared as in universal logit distillation (ULD, arXiv 2402.12030). Of any
other span the models' probabilities of its text are compared. What the teacher says is put at the
student's own slots, so that batches, chunks and sums are those of one tokenizer. Knows ids and
states. Refuses to know text and how responses are made.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import PreTrainedModel

from skd.engine.sequences import TokenBatch, TokenExample, Vocabulary, collate
from skd.engine.spans import Classes, Cut, Mark, Spans, Translation
from skd.engine.states import batch_states, evaluating, states_width
from skd.training.chunks import Predictions, chunked_loss, tokens_at_once
from skd.training.divergences import forward_kl, logit_gradient
from skd.training.losses import Terms, compare
from skd.training.settings import Divergence


@dataclass(frozen=True)
class Bridge:
    """A teacher that reads other ids than its student."""

    teacher: PreTrainedModel
    # The teacher's own
    vocabulary: Vocabulary
    classes: Classes
    # A row in the student's ids -> in the teacher's
    translate: Callable[[TokenExample], Translation]

    @torch.no_grad()
    def teach(
        self, batch: TokenBatch, rows: Iterable[int], rows_at_once: int
    ) -> tuple[TokenBatch, int, int]:
        """The batch with the spans of these rows and what the teacher says of them.

        Also gives the teacher's passes that took and the tokens in them.
        """
        said = self._nothing_said(batch)
        examples = batch.examples()
        read = {row: self.translate(examples[row]) for row in rows}
        order = sorted(read, key=lambda row: sum(map(len, vars(read[row].example).values())))
        parts = [order[i : i + rows_at_once] for i in range(0, len(order), rows_at_once)]
        tokens = 0
        for part in parts:
            own = [read[row].example for row in part]
            taught = collate(own, self.vocabulary.pad).to(batch.tokens.device)
            tokens += int(taught.lengths.sum())
            with evaluating(self.teacher):
                states = batch_states(self.teacher, taught)[taught.predictors]
            sizes = [len(example.response) for example in own]
            by_row = zip(part, states.split(sizes), taught.targets.split(sizes), strict=True)
            for row, row_states, targets in by_row:
                self._say(said, row, read[row], row_states, targets)
        return said, len(parts), tokens

    def _nothing_said(self, batch: TokenBatch) -> TokenBatch:
        width, dtype = states_width(self.teacher), self.teacher.dtype
        return dataclasses.replace(
            batch,
            teacher_states=batch.tokens.new_zeros(*batch.tokens.shape, width, dtype=dtype),
            marks=torch.full_like(batch.tokens, Mark.NONE),
            likelihoods=torch.zeros_like(batch.tokens, dtype=torch.float64),
        )

    def _say(
        self, said: TokenBatch, row: int, read: Translation, states: Tensor, targets: Tensor
    ) -> None:
        """Put one row's spans, likelihoods and states where the student's tokens stand.

        states, targets: [M, d], [M] of the teacher's response tokens.
        """
        assert said.teacher_states is not None
        assert said.marks is not None
        assert said.likelihoods is not None
        begin, end = int(said.prompt_lengths[row]), int(said.lengths[row])
        cut = Cut.of(read, said.tokens[row, begin:end], targets, self.classes)
        slots = begin + cut.begins
        said.marks[row, begin:end] = cut.marks
        said.likelihoods[row, slots] = self._likelihoods(states, targets, cut)
        alike = states[cut.teacher_begins[cut.alike]]
        said.teacher_states[row, slots[cut.alike] - 1] = alike.to(said.teacher_states.dtype)

    def _likelihoods(self, states: Tensor, targets: Tensor, cut: Cut) -> Tensor:
        """[S] the log-probability of each span's text; 0 at those that are compared by token."""
        within = torch.arange(len(cut.teacher_spans), device=states.device)
        asked = within[~cut.alike[cut.teacher_spans]]
        model = Predictions(self.teacher, states[asked])
        step = tokens_at_once(states.device, self.vocabulary.size)
        sums = torch.zeros(len(cut.begins), dtype=torch.float64, device=states.device)
        for start in range(0, len(asked), step):
            part = slice(start, start + step)
            places = asked[part]
            logs = model.logits(part, self.vocabulary.size).log_softmax(-1)
            emitted = logs.gather(-1, targets[places, None]).squeeze(-1)
            sums.index_add_(0, cut.teacher_spans[places], emitted.double())
        return sums


def span_loss(
    terms: Terms,
    student: Predictions,
    teacher: Predictions,
    spans: Spans,
    bridge: Bridge,
    size: int,
) -> tuple[Tensor, Tensor]:
    """The sum over the spans of the divergence, and of KL(teacher ‖ student) for the log.

    The first is differentiable in the student's states and head. A span counts once however many
    tokens it has: the KL of a sequence is the sum of its tokens' KLs.

    Args:
        teacher: its states mean something at the tokens that are a span of their own.
        size: of the student's vocabulary.
    """
    chunks = spans.chunks(tokens_at_once(student.states.device, size))
    compared = partial(_losses_and_gradient_, terms, teacher, spans, bridge)
    return chunked_loss(compared, chunks, student, size)


def _losses_and_gradient_(
    terms: Terms,
    teacher: Predictions,
    spans: Spans,
    bridge: Bridge,
    tokens: slice,
    logits: Tensor,
) -> tuple[Tensor, Tensor]:
    """A chunk's losses and KLs, one a span; the losses' gradient is written over the logits."""
    marks = spans.marks[tokens]
    alike = (marks == Mark.ALIKE).nonzero().squeeze(-1)
    behind = Predictions(teacher.model, teacher.states[tokens][alike])
    taught = behind.logits(slice(None), bridge.vocabulary.size).log_softmax(-1)
    with torch.enable_grad():
        given = logits.detach().requires_grad_()
        made = given.log_softmax(-1)
        likelihoods = _span_likelihoods(made, terms.targets[tokens], marks)
        asked = spans.likelihoods[tokens][marks == Mark.OPENS].to(made.dtype)
        parts = [
            _by_token(terms, bridge.classes, taught, made[alike]),
            _by_likelihood(terms, asked, likelihoods),
        ]
        losses, kls = (torch.cat(values) for values in zip(*parts, strict=True))
        (gradient,) = torch.autograd.grad(losses.sum(), given)
    logits.copy_(gradient)
    return losses.detach(), kls


def _by_token(
    terms: Terms, classes: Classes, teacher_log: Tensor, student_log: Tensor
) -> tuple[Tensor, Tensor]:
    """Losses [n] and KLs [n] of two models' next tokens [n, V of each]."""
    teacher, teacher_rest = _by_class(teacher_log.exp(), classes.teacher, classes.count)
    student, student_rest = _by_class(student_log.exp(), classes.student, classes.count)
    losses, kls = _diverge(terms, teacher, student)
    return losses + transport(teacher_rest, student_rest), kls


def _by_class(p: Tensor, classes: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the classes [n, C], among themselves, and what is of none [n, R]."""
    sums = p.new_zeros(len(p), count + 1).index_add(-1, classes, p)[:, :count]
    least = torch.finfo(p.dtype).tiny
    return sums.clamp_min(least).log().log_softmax(-1), p[:, classes == count]


def transport(p: Tensor, q: Tensor) -> Tensor:
    """[n] Wasserstein-1 between probabilities [n, R] and [n, R'] of tokens that nothing relates.

    Where moving any token's mass to any other costs alike, it is the distance between sorted
    probabilities, the shorter filled up with noughts (ULD).
    """
    width = max(p.shape[-1], q.shape[-1])
    ordered = (pad(x.sort(-1, descending=True).values, (0, width - x.shape[-1])) for x in (p, q))
    first, second = ordered
    return (first - second).abs().sum(-1)


def _span_likelihoods(student_log: Tensor, targets: Tensor, marks: Tensor) -> Tensor:
    """[S] the student's log-probability of each span that is not compared by token."""
    within = marks >= Mark.OPENS
    spans = (marks[within] == Mark.OPENS).cumsum(0) - 1
    emitted = student_log.gather(-1, targets[:, None]).squeeze(-1)[within]
    count = int((marks == Mark.OPENS).sum())
    return emitted.new_zeros(count).index_add(0, spans, emitted)


def _by_likelihood(terms: Terms, teacher: Tensor, student: Tensor) -> tuple[Tensor, Tensor]:
    """Losses [S] and KLs [S] of two models' log-probabilities of a span: it, or anything else."""
    return _diverge(terms, _it_or_not(teacher), _it_or_not(student))


def _it_or_not(log: Tensor) -> Tensor:
    """[S] -> [S, 2]; a certain span is a little less, so that anything else stays possible."""
    log = log.clamp_max(-torch.finfo(log.dtype).eps)
    return torch.stack([log, (-torch.expm1(log)).log()], -1)


def _diverge(terms: Terms, teacher: Tensor, student: Tensor) -> tuple[Tensor, Tensor]:
    """The weighted divergence [n] and KL(teacher ‖ student) [n] of log-probabilities [n, C]."""
    name = terms.loss.fixed or terms.divergence.name
    values = _Compared.apply(name, terms.divergence, teacher, student)  # type: ignore[no-untyped-call]
    kls, _ = forward_kl(teacher.clone(), student.detach(), 0.0)
    return terms.loss.divergence * values, kls


class _Compared(torch.autograd.Function):
    """A divergence of the table, whose gradient is in closed form."""

    @staticmethod
    def forward(
        ctx: Any, name: str, settings: Divergence, teacher: Tensor, student: Tensor
    ) -> Tensor:
        values, slope = compare(name, settings, teacher.clone(), student.clone())
        ctx.save_for_backward(logit_gradient(slope, student.clone()))
        return values

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        (by_logits,) = ctx.saved_tensors
        return None, None, None, gradient[:, None] * by_logits
