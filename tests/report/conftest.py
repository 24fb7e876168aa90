"""A generator of synthetic result trees: every file that the report reads, with planted effects."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from skd.tasks import TASKS

SEEDS = (20, 21, 22)
STARTS = {"teacher": 95.0, "student_init": 45.0, "student_init_instruct": 30.0}
ENVIRONMENT = {"python": "3.11.9", "torch": "2.13.0", "transformers": "4.57.6", "device": "cpu"}
COLUMNS = (
    "seed", "step", "loss", "kl", "acceptance_rate", "response_length", "tokens_per_second",
    "seconds", "trained_tokens", "sampled_tokens", "teacher_tokens",
    "learning_rate", "grad_norm", "staleness", "validation_loss", "validation_kl",
    "validation_metric",
)  # fmt: skip
ROOT = Path(__file__).parents[2]
Tree = Callable[..., Path]


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def write_lines(path: Path, rows: Sequence[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def method_row(name: str) -> dict[str, Any]:
    kind = name.removesuffix("_instruct").removesuffix("_sampled")
    return {"method": kind, "student_init": "instruct" if "instruct" in name else "sft"}


class Writer:
    """One task of the tree."""

    def __init__(self, root: Path, task: str, kind: str, seeds: Sequence[int], n: int) -> None:
        self.root, self.task, self.kind, self.seeds = root, task, kind, seeds
        self.section = "tasks"  # of metrics/evaluate/<name>.json
        self.ids = [f"test-{i}" for i in range(n)]
        self.rng = np.random.default_rng(sum(map(ord, task)))
        self.ability = self.rng.normal(0, 8, n)  # hard and easy examples, for every model

    def data(self) -> None:
        card = {
            "task": self.kind,
            "prompt": TASKS[self.kind].prompt,
            "source": {"kind": "procedural"},
            "license": "Apache-2.0",
            "splits": {name: {"rows": 300} for name in ("train", "validation", "test")},
            "duplicates": {"across_splits": 0, "dropped": 0},
            "sha256": "ab" * 32,
        }
        rows = [
            {
                "id": i,
                "source": f"#Person1#: costs $5 | $6?\n#Person2#: *yes* <b>, {i}",
                "target": "They talk about a price.",
                "references": ["They talk about a price.", "A price is discussed."],
                "valid_pattern": "x",
            }
            for i in self.ids
        ]
        write_lines(self.root / "data" / self.task / "test.jsonl", rows)
        write_json(self.root / "metrics" / "prepare" / f"{self.task}.json", card | {"seconds": 2.0})
        path = self.root / "metrics" / "sft.json"
        known = json.loads(path.read_text())["tasks"] if path.exists() else {}
        known[self.task] = {"runs": {"teacher": {"seconds": 50.0}, "student-20": {"seconds": 10.0}}}
        write_json(path, {"seconds": 60.0 * len(known), "environment": ENVIRONMENT, "tasks": known})

    def test_set(self, tests: str) -> None:
        """The files of a set that is only tested, in place of `data`'s."""
        self.section = "test_sets"
        self.ids = [f"test-{i}" for i in range(len(self.ids))]
        rows = [{"id": i, "source": f"Else {i}?", "target": "#### 3"} for i in self.ids]
        write_lines(self.root / "test_sets" / self.task / "test.jsonl", rows)
        card = {
            "task": self.kind,
            "tests": tests,
            "prompt": TASKS[self.kind].prompt,
            "source": {"kind": "files", "train": None, "test": "else.jsonl"},
            "license": "MIT",
            "splits": {"test": {"rows": len(rows)}},
            "duplicates": {"across_splits": 3, "dropped": 3, "merged": 0},
            "skipped": 0,
            "sha256": "cd" * 32,
        }
        path = self.root / "metrics" / "prepare_tests.json"
        known = json.loads(path.read_text())["test_sets"] if path.exists() else {}
        write_json(path, {"seconds": 1.0, "test_sets": known | {self.task: card}})

    def evaluation(self, name: str, means: Mapping[str, float]) -> None:
        """`means`: model -> planted mean of the primary metric."""
        models: dict[str, Any] = {}
        records = []
        for model, mean in means.items():
            fixed = model in ("teacher", "student_init_instruct")
            models[model] = {"seeds": {}}
            for seed in [None] if fixed else self.seeds:
                scores = self._scores(mean)
                key = "all" if seed is None else str(seed)
                models[model]["seeds"][key] = {
                    metric: float(np.mean(values)) for metric, values in scores.items()
                }
                records += [
                    {"model": model, "seed": seed, "id": i, "output": f"{model} says | {i}\n#### 3",
                     "stopped": True, "tokens": 9, "scores": {m: v[k] for m, v in scores.items()}}
                    for k, i in enumerate(self.ids)
                ]  # fmt: skip
        metrics = TASKS[self.kind].metrics
        facts = {
            "split": "test",
            "n": len(self.ids),
            "signatures": {m: f"nrefs:2|version:1|{m}" for m in metrics if m != "comet"},
            "not_scored": {"comet": "no checkpoint is configured"} if "comet" in metrics else {},
            "models": models,
        }
        path = self.root / "metrics" / "evaluate" / f"{name}.json"
        whole: dict[str, Any] = {"tasks": {}, "test_sets": {}}
        if path.exists():
            whole = json.loads(path.read_text())
        whole[self.section][self.task] = facts
        write_json(path, whole)
        write_json(path.parent.with_suffix(".json"), {"seconds": 3.5, "environment": ENVIRONMENT})
        write_lines(self.root / "records" / name / f"{self.task}.jsonl", records)

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
        seeds = {
            str(seed): {
                "seconds": 20.0 + seed % 3,
                "steps": 240,
                "best_step": 180,
                "response_tokens": 76_800,
                "student_sampled_tokens": 90_000 if interleaved else 0,
                "teacher_passes": 1_200,
                "teacher_tokens": 150_000,
                "acceptance_rate": acceptance if interleaved else None,
                "peak_memory_mib": 600.0,
                "phases": {
                    "sampling": 8.0 if interleaved else 0.0,
                    "teacher": 6.0,
                    "loss": 4.0,
                    "optimiser": 1.0,
                    "data": 0.5,
                    "validation": 0.5,
                },
                "validation": {"metric": mean},
                "training_rows": 300,
                "dropped_prompts": 0,
            }
            for seed in self.seeds
        }
        path = self.root / "metrics" / "distill" / f"{method}.json"
        whole = {
            "seconds": 66.0,
            "environment": ENVIRONMENT,
            "method": method_row(method),
            "budget": {"steps": 240, "batch_size": 16, "prompts": 3840},
            "tasks": {},
        }
        if path.exists():
            whole = json.loads(path.read_text())
        whole["tasks"][self.task] = {"seeds": seeds}
        write_json(path, whole)
        self._log(method, mean, acceptance if interleaved else None)

    def _log(self, method: str, mean: float, acceptance: float | None) -> None:
        path = self.root / "logs" / "distill" / method / f"{self.task}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, restval="")
            writer.writeheader()
            for seed in self.seeds:
                for step in range(4, 241, 4):
                    done = 1 - np.exp(-step / 60)
                    row = {"seed": seed, "step": step, "seconds": 0.1 * step + 0.01 * seed}
                    row |= {"trained_tokens": 320 * step, "teacher_tokens": 600 * step}
                    row["sampled_tokens"] = 0 if acceptance is None else 400 * step
                    row["loss"] = (1.6 - 1.3 * done) * np.exp(self.rng.normal(0, 0.15))
                    if acceptance is not None:
                        row["acceptance_rate"] = acceptance * (0.8 + 0.2 * done)
                    if step % 60 == 0:
                        row["validation_kl"] = 1.2 - done + self.rng.normal(0, 0.03)
                        row["validation_metric"] = 45 + (mean - 45) * done + self.rng.normal(0, 1)
                    writer.writerow(row)


def analyses(root: Path, tasks: Mapping[str, str], seeds: Sequence[int]) -> None:
    """metrics/sweep.json on the first task, metrics/probe.json on all."""
    task, kind = next(iter(tasks.items()))
    run = {
        "seconds": 9.0,
        "acceptance_rate": 70.0,
        "student_sampled_tokens": 20_000,
        "teacher_passes": 140,
        "teacher_tokens": 20_000,
    }
    runs = {
        str(value): {
            str(seed): run | {"validation": {"metric": 50.0 + value + seed % 2, "kl": 0.5}}
            for seed in seeds
        }
        for value in (1, 25)
    }
    facts = {"method": "skd", "setting": "acceptance.value", "seeds": list(seeds)}
    facts |= {"validation_examples": 150, "kinds": {task: kind}, "runs": {task: runs}}
    write_json(root / "metrics" / "sweep.json", {"sweeps": {"threshold": facts}})
    agreed = {"kl": 0.7, "spearman": 0.6, "first": 80.0, "ranks": {"0.5": 0, "0.9": 2, "0.99": 9}}
    agreed |= {"within": {"1": 70.0}, "by_position": {"0": [0.5, 70.0], "8": [0.9, 60.0]}}
    shares = dict(
        zip(("0", "1", "2", "5", "10", "25", "100"), (60, 20, 8, 6, 4, 1.5, 0.5), strict=True)
    )
    proposals = {"ranks": shares, "by_position": {"0": 90.0, "8": 70.0}}
    kept = {"accepted": 60.0, "acceptance_length": 2.5, "tokens_per_cpu_second": 300.0}
    draft = {"prompts": 4, **dict.fromkeys(("greedy", "sampled", "rejection"), kept)}
    draft["plain_greedy"] = {"tokens_per_cpu_second": 200.0}
    draft["plain_sampled"] = {"tokens_per_cpu_second": 250.0}
    draft["assisted"] = {"tokens_per_cpu_second": 50.0, "equal": 4, "reason": None}
    kinds = ("ground_truth", "student", "interleaved")
    model = {"agreement": dict.fromkeys(kinds, agreed), "proposals": proposals, "draft": draft}
    probe = {"seed": seeds[0], "k": 1, "tasks": {name: {"student_init": model} for name in tasks}}
    write_json(root / "metrics" / "probe.json", probe)
    write_json(root / "metrics" / "fairness.json", {"split": "test", "seeds": [], "tasks": {}})


@pytest.fixture
def make_tree(tmp_path: Path) -> Tree:
    """A function that writes a tree and returns its root.

    `methods`: name -> planted mean, or task (or test set) -> mean; `tasks`: name -> kind;
    `test_sets`: name -> its task.
    """

    def make(
        methods: Mapping[str, float | Mapping[str, float]],
        tasks: Mapping[str, str] | None = None,
        seeds: Sequence[int] = SEEDS,
        n: int = 60,
        acceptance: float = 80.0,
        samples: int = 2,
        test_sets: Mapping[str, str] | None = None,
    ) -> Path:
        tasks = tasks or {"summarization": "summarization"}
        for task, kind in tasks.items():
            writer = Writer(tmp_path, task, kind, seeds, n)
            writer.data()
            writer.evaluation("starts", STARTS)
            for method, planted in methods.items():
                mean = planted[task] if isinstance(planted, Mapping) else planted
                writer.evaluation(method, {method: mean})
                writer.distillation(method, mean, acceptance)
        for name, task in (test_sets or {}).items():
            writer = Writer(tmp_path, name, tasks[task], seeds, n)
            writer.test_set(task)
            writer.evaluation("starts", STARTS)
            for method, planted in methods.items():
                mean = planted[name] if isinstance(planted, Mapping) else planted
                writer.evaluation(method, {method: mean})
        pair = {
            role: {"kind": "procedural", "license": None, "architecture": "LlamaForCausalLM"}
            | {"parameters": size, "layers": layers}
            for role, size, layers in (("teacher", 410_000, 3), ("student", 150_000, 2))
        } | {"vocabulary": 800}
        write_json(
            tmp_path / "metrics" / "base.json",
            {"seconds": 70.0, "environment": ENVIRONMENT, "pair": pair},
        )
        analyses(tmp_path, tasks, seeds)
        _parameters(tmp_path, methods, tasks, seeds, samples, test_sets or {})
        return tmp_path

    return make


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
    params["report"] |= {"resamples": 1000, "samples_per_task": samples}
    (root / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
