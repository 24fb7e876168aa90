"""The files of a finished run into `skd.report.reading.run`'s values. Computes no statistics.

Every absent or incomplete file is one `UserError` that names the file and the stage to rerun.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from skd.errors import UserError
from skd.report.reading.run import (
    ALL,
    STARTS,
    TEACHER,
    Example,
    Json,
    Model,
    Run,
    TaskRun,
    Training,
)
from skd.tasks import TASKS


def read_run(
    root: Path,
    tasks: Sequence[str],
    methods: Sequence[str],
    seeds: Sequence[int],
    test_sets: Mapping[str, str] | None = None,
) -> Run:
    """Read the result tree under `root` for the named tasks, methods and seeds.

    Args:
        test_sets: name -> the task whose models were tested on it; None: none is read.

    Raises:
        UserError: a file, a seed or an example is missing; names the stage to rerun.
    """
    base = read_json(root / "metrics" / "base.json", "base")
    wanted = [str(seed) for seed in seeds]
    runs = {task: _task(root, task, methods, wanted) for task in tasks}
    sets = [
        _test_set(root, name, runs[task], methods, wanted)
        for name, task in (test_sets or {}).items()
    ]
    return Run(base, list(runs.values()), list(methods), list(seeds), sets)


def _task(root: Path, task: str, methods: Sequence[str], seeds: list[str]) -> TaskRun:
    card = read_json(root / "metrics" / "prepare" / f"{task}.json", f"prepare@{task}")
    if card.get("task") not in TASKS:
        raise UserError(
            f"metrics/prepare/{task}.json: unknown task {card.get('task')!r}; "
            f"known: {', '.join(TASKS)}; rerun `dvc repro prepare@{task}`"
        )
    _check_tuned(root, task)
    models = _evaluated(root, "tasks", task, methods, seeds)
    split = models[TEACHER].split
    rows = read_lines(root / "data" / task / f"{split}.jsonl", f"prepare@{task}")
    run = TaskRun(
        name=task,
        kind=card["task"],
        card=card,
        rows=rows,
        models=models,
        training={method: _training(root, task, method, seeds) for method in methods},
    )
    _check_examples(run)
    return run


def _test_set(
    root: Path, name: str, task: TaskRun, methods: Sequence[str], seeds: list[str]
) -> TaskRun:
    """The task's run with another set's rows and scores in place."""
    stage = "prepare_tests"
    path = root / "metrics" / f"{stage}.json"
    cards = read_json(path, stage)["test_sets"]
    if name not in cards:
        raise stale(path, f"no test set {name!r}", stage)
    run = replace(
        task,
        name=name,
        card=cards[name],
        rows=read_lines(root / "test_sets" / name / "test.jsonl", stage),
        models=_evaluated(root, "test_sets", name, methods, seeds),
    )
    _check_examples(run)
    return run


def _evaluated(
    root: Path, section: str, name: str, methods: Sequence[str], seeds: list[str]
) -> dict[str, Model]:
    """The models of a task or of a test set, the starts first."""
    models: dict[str, Model] = {}
    for stage in ("starts", *methods):
        models |= _models(root, section, name, stage, seeds)
    return models


def _check_tuned(root: Path, task: str) -> None:
    path = root / "metrics" / "sft.json"
    if task not in read_json(path, "sft")["tasks"]:
        raise stale(path, f"no task {task!r}", "sft")


def _models(root: Path, section: str, task: str, name: str, seeds: list[str]) -> dict[str, Model]:
    stage = "evaluate"
    path = root / "metrics" / "evaluate" / f"{name}.json"
    known = read_json(path, stage).get(section, {})
    if task not in known:
        raise stale(path, f"no {section.rstrip('s').replace('_', ' ')} {task!r}", stage)
    facts = known[task]
    records = root / "records" / name / f"{task}.jsonl"
    examples = _examples(records, stage)
    expected = STARTS if name == "starts" else (name,)
    models = {}
    for model in expected:
        if model not in facts["models"]:
            raise stale(path, f"no model {model!r}", stage)
        system = facts["models"][model]["seeds"]
        fixed = set(system) == {ALL}
        for seed in [ALL] if fixed else seeds:
            if seed not in system:
                raise stale(path, f"seed {seed} of {model!r} is missing", stage)
            if seed not in examples.get(model, {}):
                raise stale(records, f"no outputs of {model!r}, seed {seed}", stage)
        kept = [ALL] if fixed else seeds
        models[model] = Model(
            name=model,
            system={seed: system[seed] for seed in kept},
            examples={seed: examples[model][seed] for seed in kept},
            signatures=facts["signatures"],
            not_scored=facts.get("not_scored", {}),
            split=facts["split"],
            n=facts["n"],
        )
    return models


def _examples(path: Path, stage: str) -> dict[str, dict[str, dict[str, Example]]]:
    """model -> seed -> id -> example."""
    found: dict[str, dict[str, dict[str, Example]]] = {}
    for record in read_lines(path, stage):
        seed = ALL if record["seed"] is None else str(record["seed"])
        by_id = found.setdefault(record["model"], {}).setdefault(seed, {})
        by_id[str(record["id"])] = Example(record["output"], record["scores"])
    return found


def _training(root: Path, task: str, method: str, seeds: list[str]) -> Training:
    stage = f"distill@{method}"
    path = root / "metrics" / "distill" / f"{method}.json"
    facts = read_json(path, stage)
    if task not in facts["tasks"]:
        raise stale(path, f"no task {task!r}", stage)
    runs = facts["tasks"][task]["seeds"]
    for seed in seeds:
        if seed not in runs:
            raise stale(path, f"seed {seed} is missing", stage)
    log_path = root / "logs" / "distill" / method / f"{task}.csv"
    with _open(log_path, stage) as file:
        log = [row for row in csv.DictReader(file) if row["seed"] in seeds]
    return Training(
        method=facts["method"],
        budget=facts["budget"],
        seeds={seed: runs[seed] for seed in seeds},
        log=log,
    )


def _check_examples(run: TaskRun) -> None:
    """Paired tests need every model's score on every example."""
    ids = set(run.ids)
    for model in run.models.values():
        for seed, examples in model.examples.items():
            if set(examples) != ids:
                name = "starts" if model.name in STARTS else model.name
                raise stale(
                    Path("records") / name / f"{run.name}.jsonl",
                    f"{model.name!r}, seed {seed}: {len(examples)} examples, which are not the "
                    f"{len(ids)} of the {model.split} split",
                    "evaluate",
                )


def stale(path: Path, what: str, stage: str) -> UserError:
    """A file that is absent or says too little, and the stage that makes it."""
    return UserError(f"{path}: {what}; rerun `dvc repro {stage}`")


def _open(path: Path, stage: str) -> Any:
    try:
        return path.open(encoding="utf-8", newline="")
    except FileNotFoundError:
        raise stale(path, "no such file", stage) from None


def read_json(path: Path, stage: str) -> Json:
    with _open(path, stage) as file:
        try:
            value: Json = json.load(file)
        except json.JSONDecodeError as error:
            raise stale(path, f"not valid JSON ({error})", stage) from None
    return value


def read_lines(path: Path, stage: str) -> list[Json]:
    rows: list[Json] = []
    with _open(path, stage) as file:
        for number, line in enumerate(file, 1):
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise stale(path, f"line {number} is not valid JSON ({error})", stage) from None
    return rows
