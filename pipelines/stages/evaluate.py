"""Stage `evaluate`: greedy outputs and scores of all models on the test split and the test sets.

A test set has no models: its task's are scored on it. One stage for all models, because
importing the libraries and preparing the references takes longer than evaluating a small model.
What was tested stays in scratch under the hash of everything it depends on, so a change that
touches one method tests that method's students alone.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from pipelines.closure import code_of
from pipelines.params import Params, load
from pipelines.runs import folders
from pipelines.runs.inputs import DATA, TEST_SETS, test_rows
from pipelines.runs.jobs import Job
from pipelines.runs.scratch import alone, fingerprint, key
from pipelines.runs.workers import count, pick_device, run_jobs
from pipelines.stages.command import run as run_stage
from pipelines.stages.command import write_metrics
from skd.engine.generation import Generated, generate
from skd.files import jsonl, read_json, write_folder, write_json, write_text
from skd.metrics.base import Comet
from skd.metrics.score import score
from skd.models.encoding import Encoded, Row, decode, encode
from skd.models.loading import load_model, load_tokenizer
from skd.models.pairs import common_vocabulary
from skd.models.settings import Budget

STARTS = "starts"  # the teachers, and the students before distillation
RECORDS, METRICS = Path("records"), Path("metrics/evaluate")


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


def subjects(params: Params, task: str, name: str) -> list[Subject]:
    """The models that a method left on a task, or the starting points."""
    seeds = params.experiment.seeds
    if name != STARTS:
        return [Subject(task, name, seed, folders.student(name, task, seed)) for seed in seeds]
    return [
        Subject(task, "teacher", None, folders.teacher(task)),
        Subject(task, "student_init_instruct", None, folders.start(task, seeds[0], "instruct")),
        *(Subject(task, "student_init", seed, folders.start(task, seed)) for seed in seeds),
    ]


def evaluate(params: Params) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """-> method or `STARTS` -> split -> what `tested` says of each of its models."""
    device = pick_device(params.runtime)
    splits = test_splits(params)
    longest_first = sorted(splits, key=lambda name: -splits[name].budget.max_new_tokens)
    wanted = [
        (name, split, subject)
        for split in longest_first
        for name in (STARTS, *params.experiment.methods)
        for subject in subjects(params, splits[split].task, name)
    ]
    jobs = [tested(params, splits[split], subject, device) for _, split, subject in wanted]
    results = run_jobs(jobs, count(params.runtime, device))
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for (name, split, _), result in zip(wanted, results, strict=True):
        found.setdefault(name, {}).setdefault(split, []).append(result)
    return found


def test_splits(params: Params) -> dict[str, TestSplit]:
    """The tasks' own test splits, then the other test sets."""
    return {name: own_split(params, name) for name in params.experiment.tasks} | {
        name: _load(params, TEST_SETS / name, name, str(params.data[name].tests))
        for name in params.experiment.test_sets
    }


def own_split(params: Params, task: str) -> TestSplit:
    return _load(params, DATA / task, task, task)


def _load(params: Params, folder: Path, name: str, task: str) -> TestSplit:
    card = read_json(folder / "card.json")
    budget = params.budget.get(name, params.budget[task])
    if budget.too_long == "drop":  # training rows may go, test rows must all be scored
        budget = replace(budget, too_long="truncate")
    return TestSplit(task, card["task"], card["prompt"], budget, test_rows(folder))


def tested(params: Params, split: TestSplit, subject: Subject, device: torch.device) -> Job:
    """The job that tests one model, or finds it tested: its records and scores."""
    code = code_of("pipelines.stages.evaluate")
    parts = (fingerprint(subject.folder), vars(split), params.evaluate, device.type, code)
    name = f"test-{subject.task}-{subject.model}-{key(subject.model, subject.seed, *parts)}.json"
    path = Path(params.runtime.scratch) / name

    def job(line: int) -> dict[str, Any]:
        with alone(path):
            if not path.exists():
                write_json(path, _test(params, split, subject, device, line))
        return dict(json.loads(path.read_text(encoding="utf-8")))

    return job


def _test(
    params: Params, split: TestSplit, subject: Subject, device: torch.device, line: int
) -> dict[str, Any]:
    tokenizer = load_tokenizer(subject.folder)
    encoded = encode(split.rows, split.prompt, tokenizer, split.budget)
    model = load_model(subject.folder, device)
    generated = generate(
        model,
        [example.prompt for example in encoded.examples],
        common_vocabulary(tokenizer, model),
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
    return {
        "model": subject.model,
        "seed": "all" if subject.seed is None else str(subject.seed),
        "system": {name: round(value, 4) for name, value in scored.system.items()},
        "signatures": scored.signatures,
        "not_scored": scored.not_scored,
        "records": records(
            subject.model, subject.seed, encoded, generated, outputs, scored.per_example
        ),
    }


def records(
    model_name: str,
    seed: int | None,
    encoded: Encoded,
    generated: Generated,
    outputs: list[str],
    per_example: dict[str, list[float]],
) -> list[dict[str, Any]]:
    """One JSON row per test example."""
    return [
        {
            "model": model_name,
            "seed": seed,
            "id": row["id"],
            "output": outputs[i],
            "stopped": generated.stopped[i],
            "tokens": len(generated.responses[i]),
            "scores": {name: round(values[i], 4) for name, values in per_example.items()},
        }
        for i, row in enumerate(encoded.rows)
    ]


def _comet(params: Params, line: int) -> Comet | None:
    settings, runtime = params.evaluate, params.runtime
    if settings.comet is None:
        return None
    cache = Path(runtime.scratch) / "comet" / "scores.sqlite"
    return Comet(settings.comet, settings.comet_encoder, cache, line if runtime.progress else None)


# -------------------------------------------------------------------- files
def publish(params: Params, found: dict[str, dict[str, list[dict[str, Any]]]]) -> None:
    """records/<name>/<split>.jsonl and metrics/evaluate/<name>.json, nothing else beside them.

    What the stage took stands in metrics/evaluate.json: models are tested side by side.
    """

    def fill_records(folder: Path) -> None:
        for name, splits in found.items():
            for split, results in splits.items():
                rows = [row for result in results for row in result["records"]]
                write_text(folder / name / f"{split}.jsonl", jsonl(rows))

    def fill_metrics(folder: Path) -> None:
        for name, splits in found.items():
            facts = {
                "tasks": {task: _facts(splits[task]) for task in params.experiment.tasks},
                "test_sets": {part: _facts(splits[part]) for part in params.experiment.test_sets},
            }
            write_json(folder / f"{name}.json", facts)

    write_folder(RECORDS, fill_records)
    write_folder(METRICS, fill_metrics)
    write_metrics("evaluate", pick_device(params.runtime), {})


def _facts(results: list[dict[str, Any]]) -> dict[str, Any]:
    first = results[0]
    by_model: dict[str, Any] = {result["model"]: {"seeds": {}} for result in results}
    for result in results:
        by_model[result["model"]]["seeds"][result["seed"]] = result["system"]
    return {
        "split": "test",
        "n": len(first["records"]),
        "signatures": first["signatures"],
        "not_scored": first["not_scored"],
        "models": by_model,
    }


def main(argv: list[str] | None = None) -> None:
    argparse.ArgumentParser(description=__doc__).parse_args(argv)
    params = load()
    publish(params, evaluate(params))


if __name__ == "__main__":
    run_stage(main)
