"""Stage `evaluate`: greedy outputs and scores on the test split.

With a method: its students, one per seed. Without: the teacher and the students as they
were before distillation. Scores nothing that a training stage could read.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.inputs import DATA, test_rows
from pipelines.stage import Clock, environment, jsonl, read_json
from pipelines.stage import run as run_stage
from pipelines.workers import count, pick_device, run_jobs
from skd import models
from skd.checkpoint import write_json, write_text
from skd.config import Params, load
from skd.encode import Encoded, decode, encode
from skd.evaluate import generate, records
from skd.metrics.score import score

STARTS = "starts"


@dataclass(frozen=True)
class Subject:
    """One model to evaluate."""

    model: str
    seed: int | None
    folder: Path


def subjects(params: Params, task: str, method: str | None) -> list[Subject]:
    if method is not None:
        folder = Path("models/students") / task / method
        return [Subject(method, seed, folder / str(seed)) for seed in params.experiment.seeds]
    sft = Path("models/sft") / task
    return [
        Subject("teacher", None, sft / "teacher"),
        Subject("student_init_instruct", None, Path("models/base/student")),
        *(Subject("student_init", s, sft / f"student-{s}") for s in params.experiment.seeds),
    ]


def evaluate(params: Params, task: str, method: str | None) -> tuple[list[Any], dict[str, Any]]:
    """-> per-example records and the metrics of every subject."""
    card = read_json(DATA / task / "card.json")
    rows = test_rows(task)
    device = pick_device(params.runtime)

    def job(subject: Subject) -> Callable[[int], tuple[list[Any], Any]]:
        def work(line: int) -> tuple[list[Any], Any]:
            tokenizer = models.load_tokenizer(subject.folder)
            encoded = encode(rows, card["prompt"], tokenizer, params.budget[task])
            return _evaluate_one(params, task, card["task"], subject, encoded, tokenizer, device)

        return work

    tested = subjects(params, task, method)
    results = run_jobs([job(subject) for subject in tested], count(params.runtime, device))
    scores = results[0][1]
    facts: dict[str, Any] = {
        "split": "test",
        "n": len(results[0][0]),
        "signatures": scores.signatures,
        "not_scored": scores.not_scored,
        "models": {subject.model: {"seeds": {}} for subject in tested},
    }
    for subject, (_, scored) in zip(tested, results, strict=True):
        seed = "all" if subject.seed is None else str(subject.seed)
        values = {name: round(value, 4) for name, value in scored.system.items()}
        facts["models"][subject.model]["seeds"][seed] = values
    return [row for rows, _ in results for row in rows], facts


def _evaluate_one(
    params: Params,
    task: str,
    kind: str,
    subject: Subject,
    encoded: Encoded,
    tokenizer: Any,
    device: Any,
) -> tuple[list[Any], Any]:
    model = models.load(subject.folder, device)
    generated = generate(
        model,
        [example.prompt for example in encoded.examples],
        models.vocabulary(tokenizer, model),
        params.budget[task].max_new_tokens,
        params.evaluate.batch_size,
    )
    outputs = [decode(ids, tokenizer) for ids in generated.responses]
    scored = score(
        kind,
        encoded.rows,
        outputs,
        generated.stopped,
        comet=params.evaluate.comet,
        comet_encoder=params.evaluate.comet_encoder,
    )
    made = records(subject.model, subject.seed, encoded, generated, outputs, scored.per_example)
    return made, scored


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", help="a row of `data` in params.yaml")
    parser.add_argument("method", nargs="?", help="a row of `methods`; none: teacher and starts")
    arguments = parser.parse_args(argv)
    clock = Clock()
    params = load()
    rows, facts = evaluate(params, arguments.task, arguments.method)
    name = arguments.method or STARTS
    device = str(pick_device(params.runtime))
    write_text(Path("records") / arguments.task / f"{name}.jsonl", jsonl(rows))
    write_json(
        Path("metrics/evaluate") / arguments.task / f"{name}.json",
        {"seconds": clock.seconds, "environment": environment(device), **facts},
    )


if __name__ == "__main__":
    run_stage(main)
