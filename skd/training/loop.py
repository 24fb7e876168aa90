"""One flat loop for supervised fine-tuning and every distillation method.

Knows ids, a table of methods and files to log to; no text, no task, no experiment graph.
Random numbers, data order and learning rate are functions of (seed, step), so a resumed
run repeats an uninterrupted one bit for bit on a CPU.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from skd.engine.meter import DATA, LOSS, OPTIMISER, VALIDATION, Stopwatch
from skd.engine.seeding import seed_dropout
from skd.engine.sequences import Batch, Example, Vocabulary
from skd.engine.states import batch_states, precision
from skd.errors import UserError
from skd.files import write_folder
from skd.training.checkpoint import load_state, save_state
from skd.training.counts import Facts, open_log, response_row
from skd.training.losses import Predictions, method_loss
from skd.training.methods import METHODS, Method
from skd.training.responses import Kept, Responses, respond
from skd.training.schedule import batch_indices, learning_rate
from skd.training.settings import Distill, MethodSettings, Optimisation

Validate = Callable[[PreTrainedModel], dict[str, float]]


@dataclass(frozen=True)
class Run:
    """What one training run is made of. `scratch` holds its log, states and best weights."""

    settings: MethodSettings
    distill: Distill
    student: PreTrainedModel
    teacher: PreTrainedModel | None
    examples: Sequence[Example]
    vocabulary: Vocabulary
    max_new_tokens: int
    seed: int
    validate: Validate  # -> numbers; "metric" (higher is better) selects the best weights
    scratch: Path
    kept: Kept = field(default_factory=dict)  # the teacher's states at known responses
    description: str = ""
    progress: bool = False
    position: int = 0  # line of the progress bar

    @property
    def method(self) -> Method:
        return METHODS[self.settings.method]

    @property
    def optimisation(self) -> Optimisation:
        return self.distill.optimisation


def train(run: Run) -> Facts:
    """Train `run.student` in place, leaving it at its best validated weights.

    Raises `UserError` when the loss is not finite.
    """
    optimisation, student = run.optimisation, run.student
    parameters = [p for p in student.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters,
        lr=optimisation.learning_rate,
        weight_decay=optimisation.weight_decay,
        fused=True,  # a third of the time of one operation per tensor
    )
    run.scratch.mkdir(parents=True, exist_ok=True)
    stored = load_state(run.scratch / "state", student, optimizer)
    facts = Facts(**stored) if stored else Facts()
    log = open_log(run.scratch / "log.jsonl", facts.step)
    student.train()
    if optimisation.gradient_checkpointing:
        student.gradient_checkpointing_enable({"use_reentrant": False})
    queue: list[tuple[Batch, Responses | None]] = []
    saved = facts.step
    bar = tqdm(
        total=optimisation.steps,
        initial=facts.step,
        desc=run.description,
        disable=not run.progress,
        position=run.position,
        mininterval=1.0,
    )
    with log, bar:
        while facts.step < optimisation.steps and not _out_of_patience(run, facts):
            step, watch = facts.step, Stopwatch(student.device)
            staleness = step % run.distill.rollout_steps
            if not queue:
                queue = make_responses(run, step, staleness)
            batch, made = queue.pop(0)
            if made is not None:
                watch.absorb(made.seconds, rest=DATA)
            rate = learning_rate(optimisation, run.settings.learning_rate, step)
            row = update(run, step, batch, optimizer, parameters, rate, watch)
            facts.step += 1
            facts.count(batch, made)
            facts.spend(watch.seconds)
            row |= response_row(batch, made, watch.total) | facts.totals()
            row["staleness"] = staleness
            if _due(optimisation.validate_every, facts.step) or facts.step == optimisation.steps:
                row |= _validate(run, facts)
            print(json.dumps({"step": facts.step, **row}), file=log, flush=True)
            bar.update()
            bar.set_postfix(loss=f"{row['loss']:.3f}", refresh=False)
            if facts.step - saved >= optimisation.checkpoint_every and not queue:
                save_state(run.scratch / "state", student, optimizer, vars(facts))
                saved = facts.step
    _restore_best(run)
    return facts


# --------------------------------------------------------------------- a step
def make_responses(run: Run, step: int, staleness: int) -> list[tuple[Batch, Responses | None]]:
    """Batches of this step and, with `rollout_steps` > 1, of those that share its rollout.

    The first one carries what making them all took.
    """
    steps = min(run.distill.rollout_steps - staleness, run.optimisation.steps - step)
    size = run.optimisation.batch_size
    examples = [
        run.examples[i]
        for later in range(step, step + steps)
        for i in batch_indices(len(run.examples), size, later, run.seed)
    ]
    with precision(run.student):
        made = respond(
            run.method,
            run.settings,
            run.distill,
            run.student,
            run.teacher,
            examples,
            run.vocabulary,
            run.max_new_tokens,
            step / run.optimisation.steps,
            (run.seed, "rollout", step),
            run.kept,
        )
    return [(part, None if i else made) for i, part in enumerate(made.batch.split(size))]


def update(
    run: Run,
    step: int,
    batch: Batch,
    optimizer: torch.optim.Optimizer,
    parameters: list[torch.nn.Parameter],
    rate: float,
    watch: Stopwatch,
) -> dict[str, float | None]:
    """One optimiser step, timed; the loss is a mean over the batch's response tokens."""
    tokens = max(1, batch.response_tokens)
    loss, kl = 0.0, None
    optimizer.zero_grad(set_to_none=True)
    seed_dropout(run.student.device, run.seed, step)
    for micro in batch.split(run.optimisation.micro_batch_size):
        if micro.response_tokens == 0:
            continue
        micro = micro.to(run.student.device)
        with precision(run.student):
            total, kl_sum = _micro_loss(run, micro)
        (total / tokens).backward()
        loss += total.item() / tokens
        kl = kl if kl_sum is None else (kl or 0.0) + kl_sum.item() / tokens
    if not math.isfinite(loss):
        raise UserError(
            f"{run.description}: the loss is {loss}; lower the learning rate "
            f"(distill.optimisation.learning_rate) or the gradient clip"
        )
    watch.lap(LOSS)  # reading the loss has waited for the device
    norm = torch.nn.utils.clip_grad_norm_(parameters, run.optimisation.clip)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    row = {"loss": loss, "kl": kl, "learning_rate": rate, "grad_norm": norm.item()}
    watch.lap(OPTIMISER)
    return row


def _micro_loss(run: Run, batch: Batch) -> tuple[torch.Tensor, torch.Tensor | None]:
    student = Predictions(run.student, batch_states(run.student, batch)[batch.predictors])
    teacher = None
    if batch.teacher_states is not None:
        assert run.teacher is not None
        teacher = Predictions(run.teacher, batch.teacher_states[batch.predictors])
    return method_loss(
        run.method,
        run.settings.divergence,
        student,
        teacher,
        batch.targets,
        None if batch.replaced is None else batch.replaced[batch.response_mask],
        run.vocabulary.size,
    )


# ------------------------------------------------------------------ selection
def _validate(run: Run, facts: Facts) -> dict[str, float]:
    """Validate, and keep the weights on disk if they are the best so far (ties: the earlier)."""
    watch = Stopwatch(run.student.device)
    numbers = run.validate(run.student)
    watch.lap(VALIDATION)
    facts.spend(watch.seconds)
    facts.misses += 1
    if numbers["metric"] > facts.best_metric:
        facts.best_metric, facts.best_step, facts.misses = numbers["metric"], facts.step, 0
        facts.validation = numbers
        write_folder(run.scratch / "best", run.student.save_pretrained)
    return {f"validation_{name}": value for name, value in numbers.items()}


def _out_of_patience(run: Run, facts: Facts) -> bool:
    patience = run.optimisation.patience
    return patience is not None and facts.misses >= patience


def _restore_best(run: Run) -> None:
    best = type(run.student).from_pretrained(run.scratch / "best", dtype=run.student.dtype)
    run.student.load_state_dict(best.state_dict())


def _due(every: int | None, step: int) -> bool:
    return every is not None and step % every == 0
