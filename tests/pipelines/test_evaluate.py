"""Which models the stage scores on which rows; the models themselves are made up."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from pipelines.schema import Params, parse
from pipelines.stages import evaluate as stage
from skd.files import write_json, write_text

ROOT = Path(__file__).parents[2]


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    monkeypatch.chdir(tmp_path)
    raw = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    raw["experiment"] |= {
        "tasks": ["translation", "arithmetic"],
        "methods": ["skd"],
        "seeds": [20, 21],
        "sweeps": [],
        "fairness": [],
        "test_sets": ["svamp"],
    }
    source = {"kind": "files", "test": "x.jsonl", "columns": {"source": "q", "answer": "a"}}
    raw["data"]["svamp"] = {"task": "arithmetic", "tests": "arithmetic", "source": source}
    raw["runtime"] |= {"device": "cpu", "workers": 1}
    monkeypatch.delenv("SKD_WORKERS", raising=False)
    for folder, prompt in (
        ("data/translation", "T {source}"),
        ("data/arithmetic", "A {source}"),
        ("test_sets/svamp", "S {source}"),
    ):
        kind = "translation" if "translation" in folder else "arithmetic"
        write_json(Path(folder) / "card.json", {"task": kind, "prompt": prompt})
        row = {"id": f"test-0 of {folder}", "source": "x", "target": "#### 1"}
        write_text(Path(folder) / "test.jsonl", json.dumps(row) + "\n")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(raw))
    return parse(raw)


@pytest.fixture(autouse=True)
def fake_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model's record says where it was loaded from and what it was asked."""

    def fake(params, split, subject, device, line):
        record = {"model": subject.model, "folder": str(subject.folder), "prompt": split.prompt}
        record |= {"id": split.rows[0]["id"], "new": split.budget.max_new_tokens}
        return {
            "model": subject.model,
            "seed": "all" if subject.seed is None else str(subject.seed),
            "seconds": 1.5,
            "system": {"exact_match": 50.0},
            "signatures": {"exact_match": "s"},
            "not_scored": {},
            "records": [record],
        }

    monkeypatch.setattr(stage, "_test", fake)


def records(results: list[dict]) -> list[dict]:
    return [row for result in results for row in result["records"]]


def test_a_sets_models_are_its_tasks(params: Params) -> None:
    found = stage.evaluate(params)["skd"]
    assert set(found) == {"translation", "arithmetic", "svamp"}
    rows = records(found["svamp"])
    assert [row["folder"] for row in rows] == [
        f"models/students/skd/arithmetic/{seed}" for seed in (20, 21)
    ]
    assert {row["id"] for row in rows} == {"test-0 of test_sets/svamp"}
    assert {row["prompt"] for row in rows} == {"S {source}"}


def test_teacher_and_starts_are_scored_on_it_too(params: Params) -> None:
    found = stage.evaluate(params)[stage.STARTS]["svamp"]
    assert [row["folder"] for row in records(found)] == [
        "models/sft/arithmetic/teacher",
        "models/base/student",
        "models/sft/arithmetic/student-20",
        "models/sft/arithmetic/student-21",
    ]


def test_a_set_has_its_tasks_budget_or_its_own(params: Params) -> None:
    assert stage.test_splits(params)["svamp"].budget == params.budget["arithmetic"]
    own = replace(params.budget["arithmetic"], max_new_tokens=7, too_long="drop")
    changed = replace(params, budget={**params.budget, "svamp": own})
    budget = stage.test_splits(changed)["svamp"].budget
    assert (budget.max_new_tokens, budget.too_long) == (7, "truncate")


def test_records_and_metrics_stand_beside_the_tasks(params: Params, tmp_path: Path) -> None:
    (tmp_path / "records" / "former").mkdir(parents=True)
    stage.main([])
    assert {path.name for path in (tmp_path / "records").iterdir()} == {"skd", stage.STARTS}
    assert {path.name for path in (tmp_path / "records" / "skd").iterdir()} == {
        "translation.jsonl",
        "arithmetic.jsonl",
        "svamp.jsonl",
    }
    facts = json.loads((tmp_path / "metrics" / "evaluate" / "skd.json").read_text())
    assert list(facts["tasks"]) == ["translation", "arithmetic"]
    assert list(facts["test_sets"]) == ["svamp"]
    assert facts["test_sets"]["svamp"]["models"]["skd"]["seeds"]["21"] == {"exact_match": 50.0}


def test_what_was_tested_is_not_tested_again(
    params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    for method in ("skd", "sft"):
        write_text(Path(f"models/students/{method}/arithmetic/20/model.safetensors"), "a")
    both = replace(params, experiment=replace(params.experiment, methods=["skd", "sft"]))
    first = stage.evaluate(both)
    asked: list[tuple[str, str]] = []
    made = stage._test

    def seen(params, split, subject, device, line):
        asked.append((subject.model, split.task))
        return made(params, split, subject, device, line)

    monkeypatch.setattr(stage, "_test", seen)
    assert stage.evaluate(both) == first
    assert asked == []
    write_text(Path("models/students/skd/arithmetic/20/model.safetensors"), "b")
    stage.evaluate(both)
    assert set(asked) == {("skd", "arithmetic")}
