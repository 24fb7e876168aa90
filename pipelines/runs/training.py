"""The job of one training run: what decides it, and how it is done or taken up again.

A finished run stays in scratch under the hash of everything it depends on, so a stage that died in
its third seed, or gained a fourth, trains only what is missing. Knows text only to encode it and to
score validation outputs. Refuses to know stages.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pipelines.closure import code_of
from pipelines.runs.crossing import Crossing, cross, other_tokenizer
from pipelines.runs.inputs import TaskData
from pipelines.runs.machine import Machine
from pipelines.runs.pairing import load_pair
from pipelines.runs.preparing import prepare
from pipelines.runs.ranks import together
from pipelines.runs.scratch import fingerprint, key
from skd.engine.generation import Generated
from skd.engine.meter import peak_memory, reset_peak_memory
from skd.engine.pair import Pair
from skd.engine.shards import whole_state
from skd.engine.sources import decoder_start
from skd.files import write_folder
from skd.metrics.primary import primary_score
from skd.models.adapters import ADAPTER, has_adapter, merge_, save_adapter
from skd.models.encoding import Encoded, decode, encode
from skd.models.loading import load_tokenizer
from skd.results.runs import Preparation, RunCost, TrainedRun
from skd.training.counts import RunCounts
from skd.training.group import Group
from skd.training.loop import train
from skd.training.run import TrainingRun
from skd.training.settings import Distill, MethodSettings
from skd.training.validation import Validator

# Of the trained model, in a run's folder
MODEL = "model"


@dataclass(frozen=True)
class RunSpec:
    """The job that trains a method on a task with a seed. All of it but the name decides what
    comes out.
    """

    # For people
    name: str
    # Its training rows are those that the student sees
    task: TaskData
    settings: MethodSettings
    distill: Distill
    # Folder of the model that the student starts from
    start_folder: Path
    # None: the run has no teacher
    teacher_folder: Path | None
    seed: int

    kind: ClassVar = TrainedRun

    @property
    def steps(self) -> int:
        return self.distill.optimisation.steps

    @property
    def key(self) -> str:
        """No stage's name is in it: what one stage has trained, another one finds."""
        task, optimisation = self.task, self.distill.optimisation
        # The default's own rate, named in a row of `methods`, makes no other run.
        own = self.settings.learning_rate
        rate = optimisation.learning_rate if own is None else own
        dependencies = (
            replace(self.settings, learning_rate=rate),
            self.distill,
            self.seed,
            fingerprint(self.start_folder),
            fingerprint(self.teacher_folder) if self.teacher_folder else None,
            task.kind,
            task.prompt,
            task.budget,
            key(*task.train),
            key(*task.validation[: optimisation.validation_examples]),
            code_of("pipelines.runs.training"),
        )
        return f"{task.name}-{self.settings.method}-{self.seed}-{key(*dependencies)}"

    def make(self, machine: Machine, folder: Path, line: int) -> TrainedRun:
        """Train it, or go on where it was interrupted."""
        result = together(partial(_train, self, line=line, folder=folder), machine)
        for leftover in ("state", "best"):
            shutil.rmtree(folder / leftover, ignore_errors=True)
        return result


def _train(spec: RunSpec, machine: Machine, group: Group, line: int, folder: Path) -> TrainedRun:
    """In one process, or in each of several, of which the first leaves the files."""
    reset_peak_memory(machine.device)
    task, distill = spec.task, spec.distill
    tokenizer = load_tokenizer(spec.start_folder)
    pair, encoded, held_out, crossing = _read(spec, machine, tokenizer)
    prepared = prepare(spec, machine, pair, encoded, held_out, crossing, line, group)
    bridge = None if crossing is None else crossing.bridge
    run = TrainingRun(
        settings=spec.settings,
        distill=distill,
        pair=pair,
        known=prepared.known,
        max_new_tokens=task.budget.max_new_tokens,
        seed=spec.seed,
        validate=Validator(
            examples=held_out.examples,
            measure=_metric(task.kind, held_out, tokenizer),
            vocabulary=pair.vocabulary,
            max_new_tokens=task.budget.max_new_tokens,
            batch_size=machine.decoding_batch,
            teacher=pair.teacher if bridge is None else None,
            kept=prepared.kept_held_out,
            bridge=bridge,
            group=group,
        ),
        scratch=folder,
        kept=prepared.kept or {},
        bridge=bridge,
        group=group,
        description=spec.name,
        progress=machine.runtime.progress,
        position=line,
    )
    counts = train(run)
    weights = whole_state(pair.student)
    if group.first:
        publish = partial(_publish, pair.student, weights, tokenizer)
        write_folder(folder / MODEL, publish)
    preparation = prepared.charge(counts)
    return _result(counts, preparation, encoded, peak_memory(machine.device))


def _read(
    spec: RunSpec, machine: Machine, tokenizer: PreTrainedTokenizerBase
) -> tuple[Pair, Encoded, Encoded, Crossing | None]:
    """The models, the training and the validation rows in the student's ids, and the way to the
    teacher's ids where these are others.
    """
    task = spec.task
    teacher_tokenizer = other_tokenizer(spec.teacher_folder, tokenizer)
    pair = load_pair(spec, machine, tokenizer, shares_ids=teacher_tokenizer is None)
    reading = (task.prompt, tokenizer, task.budget, decoder_start(pair.student), pair.vocabulary)
    encoded = encode(task.train, *reading)
    rows = task.validation[: spec.distill.optimisation.validation_examples]
    held_out = encode(rows, *reading)
    if teacher_tokenizer is None:
        return pair, encoded, held_out, None
    crossing = cross(pair, tokenizer, teacher_tokenizer, task, encoded, held_out)
    return pair, crossing.encoded, crossing.held_out, crossing


def _metric(
    kind: str, held_out: Encoded, tokenizer: PreTrainedTokenizerBase
) -> Callable[[Generated], float]:
    """The task's primary metric, percent, of outputs for the held-out prompts."""

    def measure(generated: Generated) -> float:
        outputs = [decode(ids, tokenizer) for ids in generated.responses]
        return primary_score(kind, held_out.rows, outputs, generated.stopped)

    return measure


def _publish(
    student: PreTrainedModel,
    weights: Mapping[str, Tensor] | None,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
) -> None:
    """A plain model folder; an adapter is merged into the weights, and kept beside them.

    weights: of a student in parts; None: it holds its own.
    """
    if has_adapter(student):
        save_adapter(student, folder / ADAPTER)
        merge_(student.to("cpu"))  # where weights that are no codes any more have room
    save_model(student, tokenizer, folder, weights)


def save_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    weights: Mapping[str, Tensor] | None = None,
) -> None:
    """weights: to save instead of the model's own."""
    model.save_pretrained(folder, state_dict=weights)
    tokenizer.save_pretrained(folder)


def _result(
    counts: RunCounts, preparation: Preparation, encoded: Encoded, memory: float | None
) -> TrainedRun:
    assert counts.validation is not None
    return TrainedRun(
        steps=counts.step,
        best_step=counts.best_step,
        prompts=counts.prompts,
        response_tokens=counts.response_tokens,
        student_sampled_tokens=counts.student_sampled_tokens,
        teacher_sampled_tokens=counts.replaced_tokens + preparation.teacher_sampled_tokens,
        teacher_passes=counts.teacher_passes,
        teacher_tokens=counts.teacher_tokens,
        acceptance_rate=counts.acceptance_rate,
        validation=counts.validation,
        training_rows=len(encoded.rows),
        dropped_prompts=encoded.dropped,
        cut_responses=encoded.cut,
        cost=RunCost(
            seconds=round(counts.seconds, 2),
            training_seconds=round(counts.totals()["seconds"], 3),
            phases={phase: round(spent, 3) for phase, spent in counts.phases.items()},
            peak_memory=None if memory is None else round(memory, 1),
        ),
        preparation=replace(preparation, seconds=round(preparation.seconds, 3)),
    )
