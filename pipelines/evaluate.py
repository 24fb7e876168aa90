"""Stage `evaluate`: greedy outputs and scores on the test split, and on the other test sets.

With a method: its students on every task, one per seed. Without: the teachers and the
students as they were before distillation. A test set has no models: its task's are scored on
it. All share one stage, because importing the libraries takes longer than evaluating a small
model.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from pipelines import folders
from pipelines.inputs import DATA, TEST_SETS, test_rows
from pipelines.stage import jsonl, read_json, write_metrics
from pipelines.stage import run as run_stage
from pipelines.workers import count, pick_device, run_jobs
from skd import models
from skd.config import Budget, Params, load
from skd.encode import Row, decode, encode
from skd.evaluate import generate, records
from skd.files import write_text
from skd.metrics.base import Comet
from skd.metrics.score import Scores, score

STARTS = "starts"


@dataclass(frozen=True)
class Subject:
    """One model to evaluate."""

    task: str
    model: str
    seed: int | None
    folder: Path


@dataclass(frozen=True)
class TestSplit:
    """Test rows and how they are put to the models of a task."""

    task: str  # whose models are scored
    kind: str
    prompt: str
    budget: Budget
    rows: list[Row]


@dataclass(frozen=True)
class Result:
    """What a stage writes for one test split."""

    records: list[Any]
    facts: dict[str, Any]


def subjects(params: Params, task: str, method: str | None) -> list[Subject]:
    """The models that a method left on a task; the starting points without a method."""
    seeds = params.experiment.seeds
    if method is not None:
        return [Subject(task, method, seed, folders.student(method, task, seed)) for seed in seeds]
    return [
        Subject(task, "teacher", None, folders.teacher(task)),
        Subject(task, "student_init_instruct", None, folders.start(task, seeds[0], "instruct")),
        *(Subject(task, "student_init", seed, folders.start(task, seed)) for seed in seeds),
    ]


def evaluate(params: Params, method: str | None) -> dict[str, Result]:
    """-> per task, then per test set, the records and metrics of a method's students."""
    device = pick_device(params.runtime)
    splits = test_splits(params)
    longest_first = sorted(splits, key=lambda name: -splits[name].budget.max_new_tokens)
    tested = [
        (name, subject)
        for name in longest_first
        for subject in subjects(params, splits[name].task, method)
    ]

    def job(split: TestSplit, subject: Subject) -> Callable[[int], tuple[list[Any], Scores]]:
        return lambda line: _evaluate_one(params, split, subject, device, line)

    jobs = [job(splits[name], subject) for name, subject in tested]
    results = run_jobs(jobs, count(params.runtime, device))
    found: dict[str, list[tuple[Subject, tuple[list[Any], Scores]]]] = {name: [] for name in splits}
    for (name, subject), result in zip(tested, results, strict=True):
        found[name].append((subject, result))
    return {name: _collect(pairs) for name, pairs in found.items()}


def test_splits(params: Params) -> dict[str, TestSplit]:
    """The tasks' own test splits, then the other test sets."""
    own = {name: _load(params, DATA / name, name, name) for name in params.experiment.tasks}
    return own | {
        name: _load(params, TEST_SETS / name, name, str(params.data[name].tests))
        for name in params.experiment.test_sets
    }


def _load(params: Params, folder: Path, name: str, task: str) -> TestSplit:
    card = read_json(folder / "card.json")
    budget = params.budget.get(name, params.budget[task])
    if budget.too_long == "drop":  # training rows may go, test rows must all be scored
        budget = replace(budget, too_long="truncate")
    return TestSplit(task, card["task"], card["prompt"], budget, test_rows(folder))


def _collect(pairs: list[tuple[Subject, tuple[list[Any], Scores]]]) -> Result:
    _, (first, scores) = pairs[0]
    models_: dict[str, Any] = {subject.model: {"seeds": {}} for subject, _ in pairs}
    for subject, (_, scored) in pairs:
        seed = "all" if subject.seed is None else str(subject.seed)
        values = {name: round(value, 4) for name, value in scored.system.items()}
        models_[subject.model]["seeds"][seed] = values
    facts = {
        "split": "test",
        "n": len(first),
        "signatures": scores.signatures,
        "not_scored": scores.not_scored,
        "models": models_,
    }
    return Result([row for _, (rows, _) in pairs for row in rows], facts)


def _evaluate_one(
    params: Params, split: TestSplit, subject: Subject, device: torch.device, line: int
) -> tuple[list[Any], Scores]:
    tokenizer = models.load_tokenizer(subject.folder)
    encoded = encode(split.rows, split.prompt, tokenizer, split.budget)
    model = models.load(subject.folder, device)
    generated = generate(
        model,
        [example.prompt for example in encoded.examples],
        models.vocabulary(tokenizer, model),
        split.budget.max_new_tokens,
        params.evaluate.batch_size,
    )
    outputs = [decode(ids, tokenizer) for ids in generated.responses]
    scored = score(
        split.kind,
        encoded.rows,
        outputs,
        generated.stopped,
        comet=_comet(params, line),
    )
    made = records(subject.model, subject.seed, encoded, generated, outputs, scored.per_example)
    return made, scored


def _comet(params: Params, line: int) -> Comet | None:
    settings, runtime = params.evaluate, params.runtime
    if settings.comet is None:
        return None
    cache = Path(runtime.scratch) / "comet" / "scores.sqlite"
    return Comet(settings.comet, settings.comet_encoder, cache, line if runtime.progress else None)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("method", nargs="?", help="a row of `methods`; none: teacher and starts")
    arguments = parser.parse_args(argv)
    params = load()
    results = evaluate(params, arguments.method)
    name = arguments.method or STARTS
    for split, result in results.items():
        write_text(Path("records") / name / f"{split}.jsonl", jsonl(result.records))
    facts = {
        section: {split: results[split].facts for split in splits}
        for section, splits in (
            ("tasks", params.experiment.tasks),
            ("test_sets", params.experiment.test_sets),
        )
    }
    write_metrics(f"evaluate/{name}", pick_device(params.runtime), facts)


if __name__ == "__main__":
    run_stage(main)
