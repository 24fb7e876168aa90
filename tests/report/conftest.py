"""A generator of synthetic result trees: every file that the report reads, with planted effects."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from pipelines.schema import load
from pipelines.stages.report import main
from skd.data.settings import Columns, Files, Procedural
from skd.report.reading.analyses import read_analyses
from skd.report.reading.experiment import ExperimentResults
from skd.report.reading.parts import Part
from skd.report.reading.reader import read_experiment
from skd.report.sections.details import pages
from skd.report.sections.main import report
from skd.report.sections.provenance import Provenance
from skd.report.verdicts.evidence import Evidence, weigh
from skd.results.analyses import (
    Agreement,
    DecodingSpeed,
    DraftWorth,
    FairnessResult,
    JudgedProposals,
    ModelProbe,
    ProbeResult,
    SweepResult,
    SweepRuns,
)
from skd.results.data import (
    DataCard,
    Duplicates,
    Lengths,
    PrepareResult,
    PrepareTestsResult,
    SplitFacts,
)
from skd.results.evaluation import EvaluateResult, MethodScores, OutputRecord, SplitScores
from skd.results.files import read_result, write_result, write_results
from skd.results.logs import LogRow, log_text
from skd.results.pair import ModelFacts, ModelOrigin, ModelSize, PairResult
from skd.results.runs import (
    DistillResult,
    Preparation,
    RunBudget,
    RunCost,
    SftResult,
    TrainedRun,
    Validation,
)
from skd.results.took import Took
from skd.tasks import TASKS
from skd.training.settings import MethodSettings

SEEDS = (20, 21, 22)
STARTS = {"teacher": 95.0, "student_init": 45.0, "student_init_instruct": 30.0}
ENVIRONMENT = {"python": "3.11.9", "torch": "2.13.0", "transformers": "4.57.6", "device": "cpu"}
ROOT = Path(__file__).parents[2]
PART = Part("base", Took(60.0, ENVIRONMENT))
SOURCE = Provenance("none", dirty=False, parameters_hash="none", command="none")
Tree = Callable[..., Path]


def write_lines(path: Path, rows: Sequence[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def method_row(name: str) -> dict[str, Any]:
    kind = name.removesuffix("_instruct").removesuffix("_sampled")
    kind = {"plain": "sft", "ours": "skd"}.get(kind, kind)
    return {"method": kind, "student_init": "instruct" if "instruct" in name else "sft"}


def trained_run(metric: float, **changes: Any) -> TrainedRun:
    """A finished run as `distill` describes it."""
    values: dict[str, Any] = {
        "steps": 240,
        "best_step": 180,
        "prompts": 3840,
        "response_tokens": 76_800,
        "student_sampled_tokens": 0,
        "teacher_sampled_tokens": 0,
        "teacher_passes": 1_200,
        "teacher_tokens": 150_000,
        "acceptance_rate": None,
        "validation": Validation(metric, kl=0.5),
        "training_rows": 300,
        "dropped_prompts": 0,
        "cut_responses": 0,
        "cost": run_cost(),
        "preparation": Preparation(),
    }
    return TrainedRun(**values | changes)


def run_cost(seconds: float = 20.0, sampling: float = 0.0) -> RunCost:
    phases = {"sampling": sampling, "teacher": 6.0, "loss": 4.0}
    phases |= {"optimiser": 1.0, "data": 0.5, "validation": 0.5}
    return RunCost(seconds, seconds - 0.5, phases, 600.0)


def data_card(kind: str, rows: Mapping[str, int], **changes: Any) -> DataCard:
    lengths = Lengths(5, 9, 12)
    values: dict[str, Any] = {
        "task": kind,
        "tests": None,
        "prompt": TASKS[kind].prompt,
        "source": Procedural("procedural"),
        "license": "Apache-2.0",
        "splits": {
            name: SplitFacts(count, lengths, lengths, 100, "ab" * 32)
            for name, count in rows.items()
        },
        "duplicates": Duplicates(0, 0, 0),
        "skipped": 0,
        "sha256": "ab" * 32,
    }
    return DataCard(**values | changes)


class Writer:
    """One task of the tree."""

    def __init__(self, root: Path, task: str, kind: str, seeds: Sequence[int], n: int) -> None:
        self.root, self.task, self.kind, self.seeds = root, task, kind, seeds
        self.section = "tasks"  # of metrics/evaluate/<name>.json
        self.ids = [f"test-{i}" for i in range(n)]
        self.rng = np.random.default_rng(sum(map(ord, task)))
        self.ability = self.rng.normal(0, 8, n)  # hard and easy examples, for every model

    def data(self) -> None:
        rows = [
            {
                "id": i,
                "source": f"#Person1#: costs $5 | $6?\n#Person2#: *yes* <b>, {i}",
                "target": "They talk about a price.",
                "references": ["They talk about a price.", "A price is discussed."],
                "references_complete": False,
                "valid_pattern": "x",
            }
            for i in self.ids
        ]
        write_lines(self.root / "data" / self.task / "test.jsonl", rows)
        card = data_card(self.kind, {"train": 300, "validation": 300, "test": 300})
        path = self.root / "metrics" / "prepare" / f"{self.task}.json"
        write_result(path, PrepareResult(Took(2.0), card))
        path = self.root / "metrics" / "sft.json"
        known = read_result(path, SftResult, "sft").tasks if path.exists() else {}
        known[self.task] = {"teacher": trained_run(95.0), "student-20": trained_run(45.0)}
        write_result(path, SftResult(Took(60.0 * len(known), ENVIRONMENT), known))

    def test_set(self, tests: str) -> None:
        """The files of a set that is only tested, in place of `data`'s."""
        self.section = "test_sets"
        self.ids = [f"test-{i}" for i in range(len(self.ids))]
        rows = [{"id": i, "source": f"Else {i}?", "target": "#### 3"} for i in self.ids]
        write_lines(self.root / "test_sets" / self.task / "test.jsonl", rows)
        card = data_card(
            self.kind,
            {"test": len(rows)},
            tests=tests,
            source=Files("files", Columns("q", answer="a"), test="else.jsonl"),
            license="MIT",
            duplicates=Duplicates(3, 3, 0),
            sha256="cd" * 32,
        )
        path = self.root / "metrics" / "prepare_tests.json"
        known = read_result(path, PrepareTestsResult, "").test_sets if path.exists() else {}
        write_result(path, PrepareTestsResult(Took(1.0), known | {self.task: card}))

    def evaluation(self, name: str, means: Mapping[str, float]) -> None:
        """`means`: model -> planted mean of the primary metric."""
        models: dict[str, dict[str, dict[str, float]]] = {}
        records = []
        for model, mean in means.items():
            fixed = model in ("teacher", "student_init_instruct")
            models[model] = {}
            for seed in [None] if fixed else self.seeds:
                scores = self._scores(mean)
                models[model]["all" if seed is None else str(seed)] = {
                    metric: float(np.mean(values)) for metric, values in scores.items()
                }
                records += [
                    OutputRecord(
                        model=model,
                        seed=seed,
                        id=i,
                        output=f"{model} says | {i}\n#### 3",
                        stopped=True,
                        tokens=9,
                        scores={metric: values[k] for metric, values in scores.items()},
                    )
                    for k, i in enumerate(self.ids)
                ]
        metrics = TASKS[self.kind].metrics
        scores_of_split = SplitScores(
            split="test",
            n=len(self.ids),
            signatures={m: f"nrefs:2|version:1|{m}" for m in metrics if m != "comet"},
            not_scored={"comet": "no checkpoint is configured"} if "comet" in metrics else {},
            models=models,
        )
        path = self.root / "metrics" / "evaluate" / f"{name}.json"
        whole = read_result(path, MethodScores, "") if path.exists() else MethodScores({}, {})
        vars(whole)[self.section][self.task] = scores_of_split
        write_result(path, whole)
        write_result(path.parent.with_suffix(".json"), EvaluateResult(Took(3.5, ENVIRONMENT)))
        write_results(self.root / "records" / name / f"{self.task}.jsonl", records)

    def _scores(self, mean: float) -> dict[str, list[float]]:
        shift = self.rng.normal(0, 0.8)  # of the training run
        primary = np.clip(
            mean + shift + self.ability + self.rng.normal(0, 4, len(self.ids)), 0, 100
        )
        names = [m for m in TASKS[self.kind].metrics if m != "comet"]
        scores = {m: np.clip(primary - 5, 0, 100).tolist() for m in names}
        scores["valid"] = [100.0 * bool(value > 65) for value in primary]
        scores["stopped"] = [100.0] * len(self.ids)
        return scores | {TASKS[self.kind].primary: primary.tolist()}

    def distillation(self, method: str, mean: float, acceptance: float) -> None:
        interleaved = "skd" in method
        runs = {
            str(seed): trained_run(
                mean,
                student_sampled_tokens=90_000 if interleaved else 0,
                acceptance_rate=acceptance if interleaved else None,
                cost=run_cost(20.0 + seed % 3, 8.0 if interleaved else 0.0),
            )
            for seed in self.seeds
        }
        path = self.root / "metrics" / "distill" / f"{method}.json"
        known = read_result(path, DistillResult, "").tasks if path.exists() else {}
        result = DistillResult(
            took=Took(66.0, ENVIRONMENT),
            method=MethodSettings(**method_row(method)),
            budget=RunBudget(240, 16, 3840),
            tasks=known | {self.task: runs},
        )
        write_result(path, result)
        path = self.root / "logs" / "distill" / method / f"{self.task}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(log_text(self._log(mean, acceptance if interleaved else None)))

    def _log(self, mean: float, acceptance: float | None) -> Iterator[LogRow]:
        for seed in self.seeds:
            for step in range(4, 241, 4):
                done = 1 - np.exp(-step / 60)
                validated = step % 60 == 0
                yield LogRow(
                    seed=seed,
                    step=step,
                    seconds=0.1 * step + 0.01 * seed,
                    trained_tokens=320 * step,
                    teacher_tokens=600 * step,
                    sampled_tokens=0 if acceptance is None else 400 * step,
                    loss=(1.6 - 1.3 * done) * np.exp(self.rng.normal(0, 0.15)),
                    acceptance_rate=None if acceptance is None else acceptance * (0.8 + 0.2 * done),
                    validation_kl=1.2 - done + self.rng.normal(0, 0.03) if validated else None,
                    validation_metric=45 + (mean - 45) * done + self.rng.normal(0, 1)
                    if validated
                    else None,
                )


def analyses(root: Path, tasks: Mapping[str, str], seeds: Sequence[int]) -> None:
    """metrics/sweep.json on the first task, metrics/probe.json on all."""
    task, kind = next(iter(tasks.items()))
    runs = {
        str(value): {
            str(seed): trained_run(50.0 + value + seed % 2, acceptance_rate=70.0) for seed in seeds
        }
        for value in (1, 25)
    }
    sweep = SweepRuns("skd", "acceptance.value", list(seeds), 150, {task: kind}, {task: runs})
    write_result(root / "metrics" / "sweep.json", SweepResult(Took(30.0), {"threshold": sweep}))
    agreed = Agreement(
        kl=0.7,
        spearman=0.6,
        first=80.0,
        ranks={"0.5": 0, "0.9": 2, "0.99": 9},
        within={"1": 70.0},
        by_position={"0": (0.5, 70.0), "8": (0.9, 60.0)},
    )
    ranks = ("0", "1", "2", "5", "10", "25", "100")
    kept = DecodingSpeed(300.0, 60.0, 2.5)
    ways = dict.fromkeys(("sampled", "rejection"), kept)
    ways |= {
        "greedy": DecodingSpeed(300.0, 60.0, 2.5, equal=4),
        "plain_greedy": DecodingSpeed(200.0),
        "plain_sampled": DecodingSpeed(250.0),
        "assisted": DecodingSpeed(50.0, equal=3),
    }
    model = ModelProbe(
        agreement=dict.fromkeys(("ground_truth", "student", "interleaved"), agreed),
        proposals=JudgedProposals(
            ranks=dict(zip(ranks, (60.0, 20.0, 8.0, 6.0, 4.0, 1.5, 0.5), strict=True)),
            by_position={"0": 90.0, "8": 70.0},
        ),
        draft=DraftWorth(4, ways, None),
    )
    probe = ProbeResult(Took(5.0), seeds[0], 1, {name: {"student_init": model} for name in tasks})
    write_result(root / "metrics" / "probe.json", probe)
    write_result(root / "metrics" / "fairness.json", FairnessResult(Took(0.0), [], {}))


def read(root: Path) -> ExperimentResults:
    params = load(root / "params.yaml")
    experiment = params.experiment
    tested = {name: str(params.data[name].tests) for name in experiment.test_sets}
    return read_experiment(root, experiment.tasks, experiment.methods, experiment.seeds, tested)


def weighed(root: Path, reference: str = "skd", margin: float = 2.0) -> Evidence:
    """The evidence of a tree without its analyses' budgets."""
    experiment = load(root / "params.yaml").experiment
    analyses = read_analyses(root, experiment.sweeps, experiment.students)
    return weigh(read(root), analyses, reference, margin, resamples=50, seed=0)


def texts(root: Path) -> dict[str, str]:
    """The same Markdown as `built`, without figures and files."""
    params = load(root / "params.yaml")
    experiment, settings = params.experiment, params.report
    results = read(root)
    analyses = read_analyses(root, experiment.sweeps, experiment.students)
    evidence = weigh(
        results, analyses, settings.reference_method, settings.margin, resamples=50, seed=0
    )
    details = pages(results, analyses, evidence, [PART], [], settings.samples_per_task)
    return details | {"report": report(results, evidence, [PART], SOURCE, [], details)}


def built(root: Path) -> dict[str, str]:
    """Name -> Markdown of a built report: `report` and the details."""
    main(["--root", str(root)])
    folder = root / "reports"
    paths = [folder / "report.md", *sorted((folder / "details").iterdir())]
    return {path.stem: path.read_text(encoding="utf-8") for path in paths}


def write_tree(
    root: Path,
    methods: Mapping[str, float | Mapping[str, float]],
    tasks: Mapping[str, str] | None = None,
    seeds: Sequence[int] = SEEDS,
    n: int = 60,
    acceptance: float = 80.0,
    samples: int = 2,
    test_sets: Mapping[str, str] | None = None,
) -> Path:
    """Write the files of a finished experiment under `root`, and return it.

    `methods`: name -> planted mean, or task (or test set) -> mean; `tasks`: name -> kind;
    `test_sets`: name -> its task.
    """
    tasks = tasks or {"summarization": "summarization"}
    for task, kind in tasks.items():
        writer = Writer(root, task, kind, seeds, n)
        writer.data()
        writer.evaluation("starts", STARTS)
        for method, planted in methods.items():
            mean = planted[task] if isinstance(planted, Mapping) else planted
            writer.evaluation(method, {method: mean})
            writer.distillation(method, mean, acceptance)
    for name, task in (test_sets or {}).items():
        writer = Writer(root, name, tasks[task], seeds, n)
        writer.test_set(task)
        writer.evaluation("starts", STARTS)
        for method, planted in methods.items():
            mean = planted[name] if isinstance(planted, Mapping) else planted
            writer.evaluation(method, {method: mean})
    origin = ModelOrigin("procedural")
    teacher, student = (
        ModelFacts(origin, ModelSize("LlamaForCausalLM", parameters, layers, width, 800))
        for parameters, layers, width in ((410_000, 3, 96), (150_000, 2, 64))
    )
    pair = PairResult(Took(70.0, ENVIRONMENT), teacher, student, 800, [2], True)
    write_result(root / "metrics" / "base.json", pair)
    analyses(root, tasks, seeds)
    _parameters(root, methods, tasks, seeds, samples, test_sets or {})
    return root


@pytest.fixture
def make_tree(tmp_path: Path) -> Tree:
    """`write_tree` in this test's own folder."""
    return partial(write_tree, tmp_path)


def _parameters(
    root: Path,
    methods: Iterable[str],
    tasks: Mapping[str, str],
    seeds: Sequence[int],
    samples: int,
    test_sets: Mapping[str, str],
) -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["experiment"] = {
        "tasks": list(tasks),
        "methods": list(methods),
        "seeds": list(seeds),
        "sweeps": ["threshold"],
        "fairness": [],
        "students": [],
        "test_sets": list(test_sets),
    }
    task = next(iter(tasks))
    sweep = {"method": next(iter(methods)), "setting": "acceptance.value", "values": [1, 25]}
    params["sweeps"] = {"threshold": sweep | {"tasks": [task], "seeds": list(seeds)}}
    params["probe"] = {"methods": []}
    for task, kind in tasks.items():
        params["data"][task] = params["data"][kind] | {"task": kind}
        params["budget"][task] = params["budget"][kind]
    for name, task in test_sets.items():
        source = {"kind": "files", "test": "else.jsonl", "columns": {"source": "q", "answer": "a"}}
        params["data"][name] = {"task": tasks[task], "tests": task, "source": source}
    for method in methods:
        params["methods"].setdefault(method, method_row(method))
    params["report"] |= {"resamples": 100, "samples_per_task": samples}
    (root / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
