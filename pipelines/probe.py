"""Stage `probe`: do student and teacher agree, and is the student a good draft for its teacher?

Validation prompts, the first seed of each method and the students before it. Trains nothing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import PreTrainedModel

from pipelines.inputs import Task, training_task
from pipelines.stage import run as run_stage
from pipelines.stage import write_metrics
from pipelines.workers import count, pick_device, run_jobs
from skd import models
from skd.agreement import agreement
from skd.config import Acceptance, Params, Sampling, load, plain
from skd.encode import encode
from skd.errors import UserError
from skd.evaluate import GREEDY
from skd.rollout import Rollout, uniform_noise
from skd.sampling import Teacher, sample
from skd.seeding import generator
from skd.sequences import Batch, Vocabulary, collate
from skd.speculative import Decoded, Rule, speculate

WARM = Sampling()
START = "student_init"
Made = TypeVar("Made")


def probe(params: Params) -> dict[str, Any]:
    """-> tasks -> model -> its agreement by kind of prefix, and its worth as a draft."""
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
    sft = Path("models/sft") / task.name
    folder = (
        sft / f"student-{seed}"
        if model == START
        else Path("models/students") / model / task.name / str(seed)
    )
    tokenizer = models.load_tokenizer(folder)
    student, teacher = models.load(folder, device), models.load(sft / "teacher", device)
    vocabulary = models.vocabulary(tokenizer, student, teacher)
    rows = task.validation[: params.probe.examples]
    examples = encode(rows, task.prompt, tokenizer, task.budget).examples
    prompts = [example.prompt for example in examples]
    length = task.budget.max_new_tokens
    noise = uniform_noise(len(prompts), length, generator(seed, "probe", task.name))
    rule = Teacher(teacher, Acceptance("top_k", params.probe.k), params.distill.teacher_sampling)
    drawn = (prompts, vocabulary, params.distill.student_sampling, length, noise)
    prefixes: dict[str, Batch] = {
        "ground_truth": collate(examples, vocabulary.pad).to(device),
        "student": sample(student, *drawn).batch,
        "interleaved": sample(student, *drawn, rule).batch,
    }
    ks = tuple(sorted({1, 5, params.probe.k}))
    few = prompts[: params.probe.drafted]
    return {
        "agreement": {
            kind: plain(agreement(student, teacher, batch, vocabulary, ks))
            for kind, batch in prefixes.items()
        },
        "draft": draft_worth(student, teacher, few, vocabulary, length, noise[:, : len(few)]),
    }


DECODERS: dict[str, tuple[Sampling, Rule]] = {
    "greedy": (GREEDY, "match"),
    "sampled": (WARM, "match"),
    "rejection": (WARM, "rejection"),
}


def draft_worth(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    vocabulary: Vocabulary,
    length: int,
    noise: torch.Tensor,
) -> dict[str, Any]:
    """Decoding one prompt at a time: the teacher alone against the teacher with this draft.

    Raises `UserError` where greedy output is not the teacher's own: near ties of its logits in
    low precision, or a defect.
    """

    def each(work: Callable[[Sequence[int], torch.Tensor], Made]) -> tuple[list[Made], float]:
        began = time.process_time()
        made = [work(prompt, noise[:, [i]]) for i, prompt in enumerate(prompts)]
        return made, time.process_time() - began

    alone, seconds = each(
        lambda prompt, own: sample(teacher, [prompt], vocabulary, GREEDY, length, own)
    )
    facts: dict[str, Any] = {
        "prompts": len(prompts),
        "plain_tokens_per_cpu_second": sum(r.batch.response_tokens for r in alone) / seconds,
    }
    for name, (sampling, rule) in DECODERS.items():
        drafted = partial(_speculate, student, teacher, vocabulary, sampling, length, rule)
        decoded, seconds = each(drafted)
        facts[name] = _drafting(decoded, seconds)
        if name == "greedy":
            _check_same(alone, decoded)
    return facts


def _speculate(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    vocabulary: Vocabulary,
    sampling: Sampling,
    length: int,
    rule: Rule,
    prompt: Sequence[int],
    noise: torch.Tensor,
) -> Decoded:
    return speculate(student, teacher, [prompt], vocabulary, sampling, length, noise, rule)


def _drafting(decoded: list[Decoded], seconds: float) -> dict[str, float]:
    emitted = sum(one.rollout.batch.response_tokens for one in decoded)
    drafted, kept, blocks = (
        sum(getattr(one, name) for one in decoded) for name in ("drafted", "kept", "blocks")
    )
    return {
        "accepted": 100 * kept / max(1, drafted),  # percent of the drafted tokens
        "acceptance_length": emitted / max(1, blocks),  # tokens per teacher pass
        "tokens_per_cpu_second": emitted / seconds,
    }


def _check_same(alone: list[Rollout], decoded: list[Decoded]) -> None:
    changed = sum(
        not torch.equal(one.batch.tokens, other.rollout.batch.tokens)
        for one, other in zip(alone, decoded, strict=True)
    )
    if changed:
        raise UserError(
            f"speculative decoding changed the teacher's greedy output on {changed} of "
            f"{len(alone)} prompts"
        )


def main(argv: list[str] | None = None) -> None:
    argparse.ArgumentParser(description=__doc__).parse_args(argv)
    params = load()
    write_metrics("probe", pick_device(params.runtime), probe(params))


if __name__ == "__main__":
    run_stage(main)
