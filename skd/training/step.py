"""One optimiser step: the responses that it trains on, and the update by their loss.

Random numbers and data order are functions of (seed, step). Knows ids and the table of methods.
Refuses to know when a run validates, what it writes and when it ends.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from skd.engine.meter import Phase, Stopwatch
from skd.engine.seeding import seed_dropout
from skd.engine.sequences import TokenBatch
from skd.engine.shards import is_sharded, whole
from skd.engine.spans import Spans
from skd.engine.states import batch_states, precision
from skd.errors import UserError
from skd.training.chunks import Predictions
from skd.training.cross_tokenizer import span_loss
from skd.training.group import Group
from skd.training.losses import Terms, response_loss
from skd.training.methods import ResponseSource
from skd.training.optimiser import Trained
from skd.training.responses import Responses
from skd.training.run import TrainingRun
from skd.training.schedule import batch_indices


@dataclass(frozen=True)
class StepBatch:
    """What one optimiser step trains on in this process."""

    batch: TokenBatch
    # Optimiser steps since its responses were made
    staleness: int
    # What making the responses took, where this step is the first that they were made for
    responses: Responses | None


def prepare_steps(run: TrainingRun, step: int) -> Iterator[StepBatch]:
    """This process's rows of the batches of this step and, with `rollout_steps` > 1, of those that
    share its rollout.
    """
    staleness = step % run.distill.rollout_steps
    steps = min(run.distill.rollout_steps - staleness, run.optimisation.steps - step)
    size, responder = run.optimisation.batch_size, run.responder
    count = len(run.known[ResponseSource.GROUND_TRUTH])
    asked = [
        (prompt, later / run.optimisation.steps)
        for later in range(step, step + steps)
        for prompt in batch_indices(count, size, later, run.seed)
    ]
    prompts, progress = zip(*asked, strict=True)
    share = run.group.share(size)
    own = {later * size + place for later in range(steps) for place in share}
    samples = any(source.sampled for source in run.method.sources)
    with whole(run.pair.student) if samples else nullcontext(), precision(run.pair.student):
        responses = responder.respond(prompts, progress, (run.seed, "rollout", step), own)
    for later, batch in enumerate(responses.batch.split(len(share) * responder.rows_per_prompt)):
        yield StepBatch(batch, staleness + later, None if later else responses)


def update(
    run: TrainingRun,
    step: int,
    batch: TokenBatch,
    tokens: int,
    trained: Trained,
    rate: float,
    watch: Stopwatch,
) -> dict[str, float | None]:
    """One optimiser step, timed; the loss is a mean over the batch's response tokens.

    Args:
        batch: this process's rows.
        tokens: response tokens of all processes' rows.
    """
    rows = run.optimisation.micro_batch_size or len(batch.tokens)
    make = partial(_gradients, run, step, batch, max(1, tokens), trained)
    if is_sharded(run.pair.student):  # a pass that is made again would wait for the others
        loss, kl = make(rows)
    else:
        loss, kl = run.rows_at_once.fitting(make, rows, run.description)
    loss, kl = _summed(run.group, loss, kl)
    watch.lap(Phase.LOSS)  # reading the loss has waited for the device
    trained.sum_gradients(run.group)
    norm = trained.clip(run.optimisation.clip, run.group)
    for what, value in (("loss", loss), ("norm of its gradient", norm)):
        if not math.isfinite(value):  # before it gets into the weights, and into a state
            raise UserError(
                f"{run.description}: the {what} is {value} at step {step + 1}; lower the learning "
                "rate (distill.optimisation.learning_rate) or the gradient clip"
            )
    trained.step(rate)
    row = {"loss": loss, "kl": kl, "learning_rate": rate, "grad_norm": norm}
    watch.lap(Phase.OPTIMISER)
    return row


def _gradients(
    run: TrainingRun, step: int, batch: TokenBatch, tokens: int, trained: Trained, rows: int
) -> tuple[float, float | None]:
    """Leave the gradients of this process's rows; gives their part of the loss and of the KL.

    tokens, rows: what the sums are divided by, and the rows that go through the student at once.
    """
    student = run.pair.student
    loss, kl = 0.0, None
    trained.zero_grad()
    seed_dropout(student.device, run.seed, step, *run.group.name)
    for micro in batch.split(rows):
        if micro.response_tokens == 0:
            if is_sharded(student):  # the others wait for its part of the weights
                (batch_states(student, micro.to(student.device)).sum() * 0.0).backward()
            continue
        micro = micro.to(student.device)
        with precision(student):
            total, kl_sum = batch_loss(run, micro, step / run.optimisation.steps)
        (total / tokens).backward()
        loss += total.item() / tokens
        kl = kl if kl_sum is None else (kl or 0.0) + kl_sum.item() / tokens
    return loss, kl


def _summed(group: Group, loss: float, kl: float | None) -> tuple[float, float | None]:
    """Over the processes; one that asked no teacher adds nothing to the KL."""
    loss, kl_sum, known = group.totals([loss, kl or 0.0, kl is not None])
    return loss, kl_sum if known else None


def batch_loss(
    run: TrainingRun, batch: TokenBatch, progress: float
) -> tuple[Tensor, Tensor | None]:
    """The sum over the batch's response tokens of their loss, and of KL(teacher ‖ student).

    Where a method has a second loss, each row's tokens take the loss of their own source.

    Args:
        progress: the share of the run that is done.
    """
    divergence = run.settings.divergence.at(progress)
    student_states = batch_states(run.pair.student, batch)[batch.predictors]
    teacher_states = None
    if batch.teacher_states is not None:
        teacher_states = batch.teacher_states[batch.predictors]
    replaced = None if batch.replaced is None else batch.replaced[batch.response_mask]

    def part(loss_of_otherwise: bool, tokens: Tensor | slice) -> tuple[Tensor, Tensor | None]:
        loss = run.method.loss_of(loss_of_otherwise)
        terms = Terms(
            loss,
            divergence,
            batch.targets[tokens],
            None if replaced is None else replaced[tokens],
        )
        teacher = None
        if teacher_states is not None and loss.needs_teacher:
            assert run.pair.teacher is not None
            teacher = Predictions(run.pair.teacher, teacher_states[tokens])
        student = Predictions(run.pair.student, student_states[tokens])
        size = run.pair.vocabulary.size
        if run.bridge is not None and teacher is not None:
            spans = Spans.of(batch).part(tokens)
            return span_loss(terms, student, teacher, spans, run.bridge, size)
        return response_loss(terms, student, teacher, size)

    if batch.otherwise is None:
        return part(False, slice(None))
    rows = batch.otherwise[:, None].expand_as(batch.tokens)[batch.response_mask]  # [N]
    sums = [part(second, rows == second) for second in (False, True) if (rows == second).any()]
    totals, kls = zip(*sums, strict=True)
    known = [kl for kl in kls if kl is not None]
    return torch.stack(totals).sum(), torch.stack(known).sum() if known else None
