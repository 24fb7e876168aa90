"""One flat loop for supervised fine-tuning and every distillation method.

Random numbers, data order and learning rate are functions of (seed, step), so a resumed run repeats
an uninterrupted one bit for bit on a CPU. Knows ids, the table of methods and files to log to.
Refuses to know text, tasks and the experiment's graph.
"""

from __future__ import annotations

import json
import math
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel

from skd.engine.meter import Phase, Stopwatch
from skd.engine.pair import Pair
from skd.engine.seeding import seed_dropout
from skd.engine.sequences import TokenBatch
from skd.engine.spans import Spans
from skd.engine.states import batch_states, precision
from skd.errors import UserError
from skd.files import write_folder
from skd.results.runs import Validation
from skd.training.checkpoint import load_state, load_weights, save_state, save_weights
from skd.training.chunks import Predictions
from skd.training.counts import RunCounts, open_log, response_columns
from skd.training.cross_tokenizer import Bridge, span_loss
from skd.training.losses import Terms, response_loss
from skd.training.methods import METHODS, Method, ResponseSource
from skd.training.optimiser import Trained
from skd.training.responses import KnownResponses, Responder, Responses, StatesByExample
from skd.training.schedule import batch_indices, learning_rate
from skd.training.settings import Distill, MethodSettings, Optimisation

Validate = Callable[[PreTrainedModel], Validation]


@dataclass(frozen=True)
class TrainingRun:
    """What one training run is made of."""

    settings: MethodSettings
    distill: Distill
    pair: Pair
    known: KnownResponses
    max_new_tokens: int
    seed: int
    # Its metric selects the best weights
    validate: Validate
    # Holds the run's log, states and best weights
    scratch: Path
    # The teacher's states at known responses, where they are kept
    kept: StatesByExample = field(default_factory=dict)
    # To a teacher that reads other ids; None: it reads the student's
    bridge: Bridge | None = None
    description: str = ""
    progress: bool = False
    # Line of the progress bar
    position: int = 0

    @property
    def method(self) -> Method:
        return METHODS[self.settings.method]

    @property
    def optimisation(self) -> Optimisation:
        return self.distill.optimisation

    @property
    def responder(self) -> Responder:
        return Responder(
            self.method,
            self.settings.acceptance,
            self.distill,
            self.pair,
            self.known,
            self.max_new_tokens,
            self.kept,
            self.bridge,
        )


@dataclass(frozen=True)
class StepBatch:
    """What one optimiser step trains on."""

    batch: TokenBatch
    # Optimiser steps since its responses were made
    staleness: int
    # What making the responses took, where this step is the first that they were made for
    responses: Responses | None


def train(run: TrainingRun) -> RunCounts:
    """Train the run's student in place, leaving it at its best validated weights.

    Raises:
        UserError: the loss or the validation metric is not finite.
    """
    optimisation, student = run.optimisation, run.pair.student
    trained = Trained(student, optimisation)
    run.scratch.mkdir(parents=True, exist_ok=True)
    stored = load_state(run.scratch / "state", trained)
    counts = RunCounts.from_json(stored) if stored else RunCounts()
    log = open_log(run.scratch / "log.jsonl", counts.step)
    student.train()
    if optimisation.gradient_checkpointing:
        student.gradient_checkpointing_enable({"use_reentrant": False})
    waiting: deque[StepBatch] = deque()
    saved = replace(counts)
    bar = tqdm(
        total=optimisation.steps,
        initial=counts.step,
        desc=run.description,
        disable=not run.progress,
        position=run.position,
        mininterval=1.0,
    )
    with log, bar:
        while counts.step < optimisation.steps and not _out_of_patience(run, counts):
            step, watch = counts.step, Stopwatch(student.device)
            if not waiting:
                waiting.extend(prepare_steps(run, step))
            prepared = waiting.popleft()
            if prepared.responses is not None:
                watch.absorb(prepared.responses.seconds, rest=Phase.DATA)
                counts.count_responses(prepared.responses)
            rate = learning_rate(optimisation, run.settings.learning_rate, step)
            row = update(run, step, prepared.batch, trained, rate, watch)
            counts.step += 1
            counts.count_batch(prepared.batch, optimisation.batch_size)
            counts.spend(watch.seconds)
            row |= response_columns(prepared.batch, prepared.responses, watch.total)
            row |= counts.totals() | {"staleness": prepared.staleness}
            if _due(optimisation.validate_every, counts.step) or counts.step == optimisation.steps:
                row |= _validate(run, trained, counts, saved)
            print(json.dumps({"step": counts.step, **row}), file=log, flush=True)
            bar.update()
            bar.set_postfix(loss=f"{row['loss']:.3f}", refresh=False)
            if counts.step - saved.step >= optimisation.checkpoint_every and not waiting:
                save_state(run.scratch / "state", trained, counts.to_json())
                saved = replace(counts)
    load_weights(_best_folder(run, counts), trained)
    return counts


# --------------------------------------------------------------------- a step
def prepare_steps(run: TrainingRun, step: int) -> Iterator[StepBatch]:
    """Batches for this step and, with `rollout_steps` > 1, for those that share its rollout."""
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
    with precision(run.pair.student):
        responses = responder.respond(prompts, progress, (run.seed, "rollout", step))
    for later, batch in enumerate(responses.batch.split(size * responder.rows_per_prompt)):
        yield StepBatch(batch, staleness + later, None if later else responses)


def update(
    run: TrainingRun,
    step: int,
    batch: TokenBatch,
    trained: Trained,
    rate: float,
    watch: Stopwatch,
) -> dict[str, float | None]:
    """One optimiser step, timed; the loss is a mean over the batch's response tokens."""
    student = run.pair.student
    tokens = max(1, batch.response_tokens)
    loss, kl = 0.0, None
    trained.zero_grad()
    seed_dropout(student.device, run.seed, step)
    for micro in batch.split(run.optimisation.micro_batch_size):
        if micro.response_tokens == 0:
            continue
        micro = micro.to(student.device)
        with precision(student):
            total, kl_sum = batch_loss(run, micro, step / run.optimisation.steps)
        (total / tokens).backward()
        loss += total.item() / tokens
        kl = kl if kl_sum is None else (kl or 0.0) + kl_sum.item() / tokens
    if not math.isfinite(loss):
        raise UserError(
            f"{run.description}: the loss is {loss}; lower the learning rate "
            f"(distill.optimisation.learning_rate) or the gradient clip"
        )
    watch.lap(Phase.LOSS)  # reading the loss has waited for the device
    norm = torch.nn.utils.clip_grad_norm_(trained.held.values(), run.optimisation.clip)
    trained.step(rate)
    row = {"loss": loss, "kl": kl, "learning_rate": rate, "grad_norm": norm.item()}
    watch.lap(Phase.OPTIMISER)
    return row


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


# ------------------------------------------------------------------ selection
def _validate(
    run: TrainingRun, trained: Trained, counts: RunCounts, saved: RunCounts
) -> dict[str, float]:
    """Validate, and keep the weights on disk if they are the best so far (ties: the earlier).

    The best weights that the saved state counts stay until another state is saved: a run that is
    killed at any moment resumes from that state and finds them, whatever came after it.
    """
    watch = Stopwatch(run.pair.student.device)
    validation = run.validate(run.pair.student)
    watch.lap(Phase.VALIDATION)
    counts.spend(watch.seconds)
    if not math.isfinite(validation.metric):
        raise UserError(
            f"{run.description}: the validation metric is {validation.metric} after step "
            f"{counts.step}, and no weights can be chosen by it; look at the task's metric and at "
            "the references of its validation rows"
        )
    counts.misses += 1
    if validation.metric > counts.best_metric:
        counts.best_metric, counts.best_step, counts.misses = validation.metric, counts.step, 0
        counts.validation = validation
        write_folder(_best_folder(run, counts), partial(save_weights, trained=trained))
        _forget(run, keep=(counts, saved))
    values = {"metric": validation.metric, "loss": validation.loss, "kl": validation.kl}
    return {f"validation_{name}": value for name, value in values.items() if value is not None}


def _out_of_patience(run: TrainingRun, counts: RunCounts) -> bool:
    patience = run.optimisation.patience
    return patience is not None and counts.misses >= patience


def _best_folder(run: TrainingRun, counts: RunCounts) -> Path:
    """Of the best weights: the step that they are of stands in the folder's name."""
    return run.scratch / "best" / str(counts.best_step)


def _forget(run: TrainingRun, keep: tuple[RunCounts, ...]) -> None:
    """Delete best weights that none of these counts names."""
    kept = {_best_folder(run, counts) for counts in keep}
    for folder in set((run.scratch / "best").iterdir()) - kept:
        shutil.rmtree(folder)


def _due(every: int | None, step: int) -> bool:
    return every is not None and step % every == 0
