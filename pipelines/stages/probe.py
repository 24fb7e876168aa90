"""Stage `probe`: do student and teacher agree, and is the student a good draft for its teacher?

Validation prompts, the first seed of each method and the students before it. Trains nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch

from pipelines.params import Params, load
from pipelines.runs import folders
from pipelines.runs.inputs import Task, training_task
from pipelines.runs.workers import count, pick_device, run_jobs
from pipelines.stages.command import run as run_stage
from pipelines.stages.command import write_metrics
from skd.decoding.agreement import agreement, judged
from skd.decoding.drafting import draft_worth
from skd.engine.rollout import uniform_noise
from skd.engine.sampling import Teacher, sample
from skd.engine.seeding import generator
from skd.engine.sequences import Batch, collate
from skd.engine.settings import Acceptance
from skd.models.encoding import encode
from skd.models.loading import load_model, load_tokenizer
from skd.models.pairs import common_vocabulary
from skd.settings import plain

START = "student_init"


def probe(params: Params) -> dict[str, Any]:
    """-> tasks -> model -> its agreement by kind of prefix, proposals, worth as a draft."""
    device, seed = pick_device(params.runtime), params.experiment.seeds[0]
    probed = (START, *params.probe.methods)
    wanted = [(name, model) for name in params.experiment.tasks for model in probed]
    tasks = {name: training_task(params, name) for name in params.experiment.tasks}

    def job(name: str, model: str) -> Callable[[int], dict[str, Any]]:
        return lambda _line: _probe_one(params, tasks[name], model, seed, device)

    results = run_jobs([job(*pair) for pair in wanted], count(params.runtime, device))
    found: dict[str, dict[str, Any]] = {}
    for (name, model), facts in zip(wanted, results, strict=True):
        found.setdefault(name, {})[model] = facts
    return {"split": "validation", "seed": seed, "k": params.probe.k, "tasks": found}


def _probe_one(
    params: Params, task: Task, model: str, seed: int, device: torch.device
) -> dict[str, Any]:
    after = folders.student(model, task.name, seed)
    folder = folders.start(task.name, seed) if model == START else after
    tokenizer = load_tokenizer(folder)
    student, teacher = (load_model(f, device) for f in (folder, folders.teacher(task.name)))
    vocabulary = common_vocabulary(tokenizer, student, teacher)
    rows = task.validation[: params.probe.examples]
    examples = encode(rows, task.prompt, tokenizer, task.budget).examples
    prompts = [example.prompt for example in examples]
    length = task.budget.max_new_tokens
    noise = uniform_noise(len(prompts), length, generator(seed, "probe", task.name))
    rule = Teacher(teacher, Acceptance("top_k", params.probe.k), params.distill.teacher_sampling)
    drawn = (prompts, vocabulary, params.distill.student_sampling, length, noise)
    corrected = sample(student, *drawn, rule)
    prefixes: dict[str, Batch] = {
        "ground_truth": collate(examples, vocabulary.pad).to(device),
        "student": sample(student, *drawn).batch,
        "interleaved": corrected.batch,
    }
    ks = tuple(sorted({1, 5, params.probe.k}))
    few = prompts[: params.probe.drafted]
    return {
        "agreement": {
            kind: plain(agreement(student, teacher, batch, vocabulary, ks))
            for kind, batch in prefixes.items()
        },
        "proposals": plain(judged(corrected)),
        "draft": draft_worth(student, teacher, few, vocabulary, length, noise[:, : len(few)]),
    }


def main(argv: list[str] | None = None) -> None:
    argparse.ArgumentParser(description=__doc__).parse_args(argv)
    params = load()
    write_metrics("probe", pick_device(params.runtime), probe(params))


if __name__ == "__main__":
    run_stage(main)
