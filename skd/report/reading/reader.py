"""The files of a finished experiment into the values of `skd.report.reading.experiment`.

Every absent or incomplete file is one `UserError` that names the file and the stage to rerun.
Refuses to compute statistics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from skd.data.record import ExampleRow, read_examples
from skd.report.reading.experiment import (
    STARTS,
    TEACHER_ROW,
    ExperimentResults,
    MethodTraining,
    ModelScores,
    TaskResults,
)
from skd.results.data import PrepareResult, PrepareTestsResult
from skd.results.evaluation import ALL_SEEDS, MethodScores, OutputRecord, SplitScores
from skd.results.files import read_result, read_results, stale
from skd.results.logs import read_log
from skd.results.pair import PairResult
from skd.results.runs import DistillResult

Value = TypeVar("Value")
METRICS = Path("metrics")
EVALUATE, PREPARE_TESTS = "evaluate", "prepare_tests"


def read_experiment(
    root: Path,
    tasks: Sequence[str],
    methods: Sequence[str],
    seeds: Sequence[int],
    test_sets: Mapping[str, str] | None = None,
) -> ExperimentResults:
    """Read the result tree under `root` for the named tasks, methods and seeds.

    Args:
        test_sets: name -> the task whose models were tested on it; None: none is read.

    Raises:
        UserError: a file, a seed or an example is missing; names the stage to rerun.
    """
    wanted = [str(seed) for seed in seeds]
    by_name = {task: _task(root, task, methods, wanted) for task in tasks}
    return ExperimentResults(
        pair=read_result(root / METRICS / "base.json", PairResult, "base"),
        tasks=list(by_name.values()),
        methods=list(methods),
        seeds=list(seeds),
        test_sets=[
            _test_set(root, name, by_name[task], methods, wanted)
            for name, task in (test_sets or {}).items()
        ],
    )


def _task(root: Path, name: str, methods: Sequence[str], seeds: Sequence[str]) -> TaskResults:
    stage = f"prepare@{name}"
    card = read_result(root / METRICS / "prepare" / f"{name}.json", PrepareResult, stage).card
    models = _models(root, "tasks", name, methods, seeds)
    split = models[TEACHER_ROW].split
    return _complete(
        TaskResults(
            name=name,
            kind=card.task,
            card=card,
            rows=_rows(root / "data" / name / f"{split}.jsonl", stage),
            models=models,
            training={method: _training(root, name, method, seeds) for method in methods},
        )
    )


def _test_set(
    root: Path, name: str, task: TaskResults, methods: Sequence[str], seeds: Sequence[str]
) -> TaskResults:
    """The task's results with another set's rows and scores in place."""
    path = root / METRICS / f"{PREPARE_TESTS}.json"
    cards = read_result(path, PrepareTestsResult, PREPARE_TESTS).test_sets
    return _complete(
        replace(
            task,
            name=name,
            card=_named(cards, name, path, "test set", PREPARE_TESTS),
            rows=_rows(root / "test_sets" / name / "test.jsonl", PREPARE_TESTS),
            models=_models(root, "test_sets", name, methods, seeds),
        )
    )


def _rows(path: Path, stage: str) -> list[ExampleRow]:
    if not path.exists():
        raise stale(path, "no such file", stage)
    return read_examples(path)


# ------------------------------------------------------------------- evaluation
def _models(
    root: Path, section: str, split: str, methods: Sequence[str], seeds: Sequence[str]
) -> dict[str, ModelScores]:
    """The models of a task or of a test set, the starts first.

    section: `tasks` or `test_sets`, as in `MethodScores`.
    """
    by_file = {"starts": STARTS, **{method: (method,) for method in methods}}
    models: dict[str, ModelScores] = {}
    for file, names in by_file.items():
        path = root / METRICS / EVALUATE / f"{file}.json"
        splits = vars(read_result(path, MethodScores, EVALUATE))[section]
        scores = _named(splits, split, path, section.rstrip("s").replace("_", " "), EVALUATE)
        records = root / "records" / file / f"{split}.jsonl"
        outputs = _outputs(records)
        for name in names:
            models[name] = _model(name, scores, outputs.get(name, {}), seeds, (path, records))
    return models


def _model(
    name: str,
    scores: SplitScores,
    outputs: Mapping[str, Mapping[str, OutputRecord]],
    seeds: Sequence[str],
    paths: tuple[Path, Path],
) -> ModelScores:
    """paths: of the scores and of the outputs, for messages."""
    by_seed = _named(scores.models, name, paths[0], "model", EVALUATE)
    kept = [ALL_SEEDS] if set(by_seed) == {ALL_SEEDS} else seeds
    for seed in kept:
        if seed not in by_seed:
            raise stale(paths[0], f"seed {seed} of {name!r} is missing", EVALUATE)
        if seed not in outputs:
            raise stale(paths[1], f"no outputs of {name!r}, seed {seed}", EVALUATE)
    return ModelScores(
        name=name,
        by_seed={seed: by_seed[seed] for seed in kept},
        outputs={seed: outputs[seed] for seed in kept},
        signatures=scores.signatures,
        not_scored=scores.not_scored,
        split=scores.split,
        n=scores.n,
    )


def _outputs(path: Path) -> dict[str, dict[str, dict[str, OutputRecord]]]:
    """Model -> seed -> id of the row -> output."""
    outputs: dict[str, dict[str, dict[str, OutputRecord]]] = {}
    for record in read_results(path, OutputRecord, EVALUATE):
        seed = ALL_SEEDS if record.seed is None else str(record.seed)
        outputs.setdefault(record.model, {}).setdefault(seed, {})[record.id] = record
    return outputs


def _complete(task: TaskResults) -> TaskResults:
    """The same task, once every model has an output of every example: tests are paired."""
    ids = set(task.ids)
    for model in task.models.values():
        for seed, outputs in model.outputs.items():
            if set(outputs) != ids:
                file = "starts" if model.name in STARTS else model.name
                raise stale(
                    Path("records") / file / f"{task.name}.jsonl",
                    f"{model.name!r}, seed {seed}: {len(outputs)} examples, which are not the "
                    f"{len(ids)} of the {model.split} split",
                    EVALUATE,
                )
    return task


# --------------------------------------------------------------------- training
def _training(root: Path, task: str, method: str, seeds: Sequence[str]) -> MethodTraining:
    stage = f"distill@{method}"
    path = root / METRICS / "distill" / f"{method}.json"
    result = read_result(path, DistillResult, stage)
    runs = _named(result.tasks, task, path, "task", stage)
    for seed in seeds:
        if seed not in runs:
            raise stale(path, f"seed {seed} is missing", stage)
    log = read_log(root / "logs" / "distill" / method / f"{task}.csv", stage)
    return MethodTraining(
        settings=result.method,
        budget=result.budget,
        runs={seed: runs[seed] for seed in seeds},
        log=[row for row in log if str(row.seed) in seeds],
    )


def _named(values: Mapping[str, Value], name: str, path: Path, what: str, stage: str) -> Value:
    """The value of that name. Raises `UserError` where the file does not have it."""
    if name not in values:
        raise stale(path, f"no {what} {name!r}", stage)
    return values[name]
