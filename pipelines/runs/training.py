"""One training run of a stage: its scratch folder, its resume, its finished model.

`seq_kd`'s responses are made here too, once per run, before its first step.

A finished run stays in scratch under the hash of everything it depends on, so a stage
that died in its third seed, or gained a fourth, trains only what is missing. Used by
the stages that train; knows text only to encode it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pipelines.closure import code_of
from pipelines.params import Params
from pipelines.runs.inputs import Task
from pipelines.runs.scratch import alone, fingerprint, key
from skd.engine.generation import generate
from skd.engine.meter import TEACHER, VALIDATION, Stopwatch, peak_memory, reset_peak_memory
from skd.engine.rollout import uniform_noise
from skd.engine.seeding import generator
from skd.engine.sequences import Example, Vocabulary
from skd.files import write_folder, write_json
from skd.models.encoding import Encoded, Row, encode
from skd.models.loading import load_model, load_tokenizer
from skd.models.pairs import common_vocabulary
from skd.models.settings import Budget
from skd.training.counts import Facts
from skd.training.loop import Run, train
from skd.training.methods import METHODS
from skd.training.responses import DECODING
from skd.training.settings import Distill, MethodSettings
from skd.training.teacher_cache import KeptStates, keep, pays
from skd.training.validation import validator


@dataclass(frozen=True)
class Spec:
    """A run as values: with the rows and the two model folders it makes the scratch key."""

    name: str
    settings: MethodSettings
    distill: Distill
    start: Path  # model folder the student starts from
    teacher: Path | None
    seed: int


def subset(rows: Sequence[Row], size: int | None, seed: int) -> list[Row]:
    """The rows a student may see: drawn by the run's seed; all of them if size is None."""
    order = torch.randperm(len(rows), generator=generator(seed, "subset")).tolist()
    return [rows[i] for i in order[:size]]


def scratch_of(params: Params, spec: Spec, task: Task, rows: Sequence[Row]) -> Path:
    rate = spec.settings.learning_rate or spec.distill.optimisation.learning_rate
    parts = (
        replace(spec.settings, learning_rate=rate),  # the default's own value named is no other run
        spec.distill,
        spec.seed,
        fingerprint(spec.start),
        fingerprint(spec.teacher) if spec.teacher else None,
        task.kind,
        task.prompt,
        task.budget,
        key(*rows),
        key(*task.validation[: spec.distill.optimisation.validation_examples]),
        code_of("pipelines.runs.training"),
    )
    # No stage's name is in here: what one has trained, another finds.
    name = f"{task.name}-{spec.settings.method}-{spec.seed}-{key(*parts)}"
    return Path(params.runtime.scratch) / name


def train_run(
    params: Params,
    spec: Spec,
    task: Task,
    rows: Sequence[Row],
    device: torch.device,
    position: int,
) -> dict[str, Any]:
    """Train or find one model; returns its facts, with "folder" the model and "log" its log."""
    scratch = scratch_of(params, spec, task, rows)
    finished = scratch / "finished.json"
    with alone(scratch):
        if not finished.exists():
            write_json(finished, _train(params, spec, task, rows, device, position, scratch))
            for leftover in ("state", "best"):
                shutil.rmtree(scratch / leftover, ignore_errors=True)
    return dict(json.loads(finished.read_text(encoding="utf-8")))


def _train(
    params: Params,
    spec: Spec,
    task: Task,
    rows: Sequence[Row],
    device: torch.device,
    position: int,
    scratch: Path,
) -> dict[str, Any]:
    reset_peak_memory(device)
    optimisation = spec.distill.optimisation
    tokenizer = load_tokenizer(spec.start)
    student = load_model(spec.start, device, dropout=optimisation.dropout)
    low = torch.float32 if device.type == "cpu" else torch.bfloat16
    teacher = load_model(spec.teacher, device, dtype=low) if spec.teacher else None
    if teacher is not None:
        teacher.requires_grad_(False)
    vocabulary = common_vocabulary(tokenizer, *(m for m in (student, teacher) if m is not None))
    encoded = encode(rows, task.prompt, tokenizer, task.budget)
    examples, watch = encoded.examples, Stopwatch(device)
    if METHODS[spec.settings.method].response == "teacher":
        examples = _teacher_responses(
            teacher, spec, encoded, vocabulary, task.budget, params.evaluate.batch_size
        )
    watch.lap(TEACHER)
    validation = encode(
        task.validation[: optimisation.validation_examples], task.prompt, tokenizer, task.budget
    )
    kept, held_out = (
        _kept(params, spec, teacher, known, uses, vocabulary)
        for known, uses in (
            (examples, METHODS[spec.settings.method].known_share * optimisation.prompts),
            (validation.examples, optimisation.validations * len(validation.examples)),
        )
    )
    facts = train(
        Run(
            settings=spec.settings,
            distill=spec.distill,
            student=student,
            teacher=teacher,
            examples=examples,
            vocabulary=vocabulary,
            max_new_tokens=task.budget.max_new_tokens,
            seed=spec.seed,
            validate=validator(
                task.kind,
                validation,
                tokenizer,
                vocabulary,
                task.budget.max_new_tokens,
                params.evaluate.batch_size,
                teacher,
                held_out,
            ),
            scratch=scratch,
            kept=kept or {},
            description=spec.name,
            progress=params.runtime.progress,
            position=position,
        )
    )
    write_folder(scratch / "model", lambda folder: save(student, tokenizer, folder))
    if examples is not encoded.examples:  # the teacher's work before the first step
        facts.spend(watch.seconds)
        facts.teacher_tokens += sum(len(e.prompt) + len(e.response) for e in examples)
    if held_out is not None:  # these and `kept` count as if each run made its own
        facts.spend({VALIDATION: held_out.seconds})
    if kept is not None:
        facts.spend({TEACHER: kept.seconds})
        facts.teacher_passes += kept.passes
        facts.teacher_tokens += kept.teacher_tokens
    return _facts(facts, encoded, scratch, peak_memory(device))


def _kept(
    params: Params,
    spec: Spec,
    teacher: PreTrainedModel | None,
    examples: Sequence[Example],
    uses: float,
    vocabulary: Vocabulary,
) -> KeptStates | None:
    """The teacher's states at these responses where keeping them pays, shared between runs."""
    if teacher is None or spec.teacher is None or not uses:
        return None
    if not pays(spec.distill.teacher_cache, uses, examples, teacher):
        return None
    optimisation = spec.distill.optimisation
    rows = optimisation.micro_batch_size or optimisation.batch_size
    kind = f"{teacher.device.type} {teacher.dtype} {rows}"
    name = key(
        fingerprint(spec.teacher),
        [vars(e) for e in examples],
        kind,
        code_of("skd.training.teacher_cache"),
    )
    path = Path(params.runtime.scratch) / f"teacher-{name}.safetensors"
    with alone(path):
        return keep(path, teacher, examples, vocabulary, rows)


def _teacher_responses(
    teacher: Any,
    spec: Spec,
    encoded: Encoded,
    vocabulary: Vocabulary,
    budget: Budget,
    batch_size: int,
) -> list[Example]:
    """The teacher's own responses to the training prompts."""
    length = budget.max_new_tokens
    prompts = [example.prompt for example in encoded.examples]
    generated = generate(
        teacher,
        prompts,
        vocabulary,
        length,
        batch_size,
        DECODING[spec.settings.decoding],
        uniform_noise(len(prompts), length, generator(spec.seed, "seq_kd")),
    )
    responses = zip(prompts, generated.responses, strict=True)
    return [Example(prompt, tuple(response)) for prompt, response in responses]


def save(model: Any, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _facts(facts: Facts, encoded: Encoded, scratch: Path, memory: float | None) -> dict[str, Any]:
    judged = facts.judged_tokens
    accepted = judged - facts.replaced_tokens
    return {
        "seconds": round(facts.seconds, 2),
        "training_seconds": round(facts.totals()["seconds"], 3),  # without validation
        "phases": {phase: round(spent, 3) for phase, spent in facts.phases.items()},
        "peak_memory_mib": None if memory is None else round(memory, 1),
        "steps": facts.step,
        "best_step": facts.best_step,
        "prompts": facts.prompts,
        "response_tokens": facts.response_tokens,
        "student_sampled_tokens": facts.student_sampled_tokens,
        "teacher_passes": facts.teacher_passes,
        "teacher_tokens": facts.teacher_tokens,
        "acceptance_rate": 100 * accepted / judged if judged else None,  # percent
        "validation": facts.validation,
        "training_rows": len(encoded.rows),
        "dropped_prompts": encoded.dropped,
        "cut_responses": encoded.cut,
        "folder": str(scratch / "model"),
        "log": str(scratch / "log.jsonl"),
    }


def public(facts: dict[str, Any]) -> dict[str, Any]:
    """Facts without the scratch paths, for metrics files."""
    return {name: value for name, value in facts.items() if name not in ("folder", "log")}
