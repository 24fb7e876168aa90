"""One flat loop for supervised fine-tuning and every distillation method.

Random numbers, data order and learning rate are functions of (seed, step), so a resumed run repeats
an uninterrupted one bit for bit on a CPU. Knows ids, the table of methods and files to log to.
Refuses to know text, tasks and the experiment's graph.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from skd.engine.meter import Phase, Stopwatch
from skd.engine.shards import is_sharded, whole
from skd.errors import UserError
from skd.training.checkpoint import load_state, load_weights, save_state, save_weights
from skd.training.counts import RunCounts, StepCounts, open_log, spent
from skd.training.optimiser import Trained
from skd.training.run import TrainingRun
from skd.training.schedule import learning_rate
from skd.training.step import StepBatch, prepare_steps, update

_BEST = "best"


def train(run: TrainingRun) -> RunCounts:
    """Train the run's student in place, leaving it at its best validated weights.

    Several processes that do this with the same run, but for their place in its group, train it
    together; each gives the counts of all.

    Raises:
        UserError: the loss, its gradient or the validation metric is not finite, there is no
            memory for one row, or a process has no row.
    """
    optimisation, student, group = run.optimisation, run.pair.student, run.group
    _check_shares(run)
    trained = Trained(student, optimisation)
    run.scratch.mkdir(parents=True, exist_ok=True)
    stored = load_state(run.scratch / "state", trained, run.scratch / _BEST, group)
    counts = RunCounts.from_json(stored) if stored else RunCounts()
    log = _open_log(run, counts.step)
    student.train()
    if optimisation.gradient_checkpointing:
        student.gradient_checkpointing_enable({"use_reentrant": False})
    waiting: deque[StepBatch] = deque()
    saved = replace(counts)
    bar = tqdm(
        total=optimisation.steps,
        initial=counts.step,
        desc=run.description,
        disable=not (run.progress and group.first),
        position=run.position,
        mininterval=1.0,
    )
    with log, bar:
        while counts.step < optimisation.steps and not _out_of_patience(run, counts):
            step, watch = counts.step, Stopwatch(student.device)
            if not waiting:
                waiting.extend(prepare_steps(run, step))
            prepared = waiting.popleft()
            made = StepCounts.of(prepared.batch, prepared.responses).of_all(group)
            if prepared.responses is not None:
                watch.absorb(prepared.responses.seconds, rest=Phase.DATA)
            rate = learning_rate(optimisation, run.settings.learning_rate, step)
            row = update(run, step, prepared.batch, made.response_tokens, trained, rate, watch)
            counts.step += 1
            counts.count(made, optimisation.batch_size)
            seconds = spent(watch, group)
            counts.spend(seconds)
            row |= made.columns(sum(seconds.values()))
            row |= counts.totals() | {"staleness": prepared.staleness}
            if _due(optimisation.validate_every, counts.step) or counts.step == optimisation.steps:
                row |= _validate(run, trained, counts, saved)
            print(json.dumps({"step": counts.step, **row}), file=log, flush=True)
            bar.update()
            bar.set_postfix(loss=f"{row['loss']:.3f}", refresh=False)
            if counts.step - saved.step >= optimisation.checkpoint_every and not waiting:
                save_state(run.scratch / "state", trained, counts.to_json(), group)
                saved = replace(counts)
    group.wait()
    load_weights(_best_folder(run, counts), trained)
    return counts


def _check_shares(run: TrainingRun) -> None:
    """A process without a row could do nothing; parts of weights are gathered by all at once."""
    rows, size = run.optimisation.batch_size, run.group.size
    if rows < size or (is_sharded(run.pair.student) and rows % size):
        even = " in equal parts, as runtime.shard needs it" if rows >= size else ""
        raise UserError(
            f"{run.description}: {size} processes cannot share batches of {rows}{even}; set "
            "another runtime.processes or batch_size"
        )


def _open_log(run: TrainingRun, step: int) -> TextIO:
    """The run's log from this step on; nothing keeps what other processes than the first log."""
    if run.group.first:
        return open_log(run.scratch / "log.jsonl", step)
    return Path(os.devnull).open("a", encoding="utf-8")


# ------------------------------------------------------------------ selection
def _validate(
    run: TrainingRun, trained: Trained, counts: RunCounts, saved: RunCounts
) -> dict[str, float]:
    """Validate, and keep the weights on disk if they are the best so far (ties: the earlier).

    The best weights that the saved state counts stay until another state is saved: a run that is
    killed at any moment resumes from that state and finds them, whatever came after it.
    """
    watch = Stopwatch(run.pair.student.device)
    with whole(run.pair.student):
        validation = run.validate(run.pair.student)
    watch.lap(Phase.VALIDATION)
    counts.spend(spent(watch, run.group))
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
        save_weights(_best_folder(run, counts), trained, run.group)
        if run.group.first:
            _forget(run, keep=(counts, saved))
    values = {"metric": validation.metric, "loss": validation.loss, "kl": validation.kl}
    return {f"validation_{name}": value for name, value in values.items() if value is not None}


def _out_of_patience(run: TrainingRun, counts: RunCounts) -> bool:
    patience = run.optimisation.patience
    return patience is not None and counts.misses >= patience


def _best_folder(run: TrainingRun, counts: RunCounts) -> Path:
    """Of the best weights: the step that they are of stands in the folder's name."""
    return run.scratch / _BEST / str(counts.best_step)


def _forget(run: TrainingRun, keep: tuple[RunCounts, ...]) -> None:
    """Delete best weights that none of these counts names."""
    kept = {_best_folder(run, counts) for counts in keep}
    for folder in set((run.scratch / _BEST).iterdir()) - kept:
        shutil.rmtree(folder)


def _due(every: int | None, step: int) -> bool:
    return every is not None and step % every == 0
