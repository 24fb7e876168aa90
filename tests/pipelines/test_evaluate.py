"""Which models the stage scores on which rows; the models themselves are made up."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from pipelines.parameters import read_parameters
from pipelines.runs import testing
from pipelines.stages import evaluate as stage
from pipelines.stages.evaluate import Parameters
from skd.data.settings import Procedural
from skd.files import write_text
from skd.results.data import DataCard, Duplicates
from skd.results.evaluation import OutputRecord
from skd.results.files import write_result

ROOT = Path(__file__).parents[2]


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Parameters:
    monkeypatch.chdir(tmp_path)
    raw = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    raw["experiment"] |= {
        "tasks": ["translation", "arithmetic"],
        "methods": ["skd"],
        "seeds": [20, 21],
        "test_sets": ["svamp"],
    }
    raw["runtime"] |= {"device": "cpu", "workers": 1}
    monkeypatch.delenv("SKD_WORKERS", raising=False)
    for folder, prompt, tests in (
        ("data/translation", "T {source}", None),
        ("data/arithmetic", "A {source}", None),
        ("test_sets/svamp", "S {source}", "arithmetic"),
    ):
        kind = "translation" if "translation" in folder else "arithmetic"
        none = Duplicates(0, 0, 0)
        card = DataCard(kind, tests, prompt, Procedural("procedural"), None, {}, none, 0, "")
        write_result(Path(folder) / "card.json", card)
        row = {"id": f"test-0 of {folder}", "source": "x", "target": "#### 1"}
        write_text(Path(folder) / "test.jsonl", json.dumps(row) + "\n")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(raw))
    return read_parameters(Parameters)


@pytest.fixture(autouse=True)
def fake_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model's output says where it was loaded from and what it was asked."""

    def fake(job, machine, line):
        record = OutputRecord(
            model=job.model,
            seed=job.seed,
            id=job.split.rows[0]["id"],
            output=f"{job.folder} {job.split.prompt}",
            stopped=True,
            tokens=job.split.budget.max_new_tokens,
            scores={},
        )
        seed = "all" if job.seed is None else str(job.seed)
        scores = {"exact_match": 50.0}
        return testing.TestedModel(job.model, seed, scores, {"exact_match": "s"}, {}, [record])

    monkeypatch.setattr(testing, "_test", fake)


def records(models: list[testing.TestedModel]) -> list[OutputRecord]:
    return [record for model in models for record in model.records]


def test_a_sets_models_are_its_tasks(params: Parameters) -> None:
    tested = stage.evaluate(params)["skd"]
    assert set(tested) == {"translation", "arithmetic", "svamp"}
    assert [record.output for record in records(tested["svamp"])] == [
        f"models/students/skd/arithmetic/{seed} S {{source}}" for seed in (20, 21)
    ]
    assert {record.id for record in records(tested["svamp"])} == {"test-0 of test_sets/svamp"}


def test_teacher_and_starts_are_scored_on_it_too(params: Parameters) -> None:
    tested = stage.evaluate(params)[stage.STARTS]["svamp"]
    assert [record.output.split()[0] for record in records(tested)] == [
        "models/sft/arithmetic/teacher",
        "models/base/student",
        "models/sft/arithmetic/student-20",
        "models/sft/arithmetic/student-21",
    ]


def test_a_set_has_its_tasks_budget_or_its_own(params: Parameters) -> None:
    assert stage.test_splits(params)["svamp"].budget == params.budget["arithmetic"]
    own = replace(params.budget["arithmetic"], max_new_tokens=7, too_long="drop")
    changed = replace(params, budget={**params.budget, "svamp": own})
    budget = stage.test_splits(changed)["svamp"].budget
    assert (budget.max_new_tokens, budget.too_long) == (7, "truncate")


def test_records_and_metrics_stand_beside_the_tasks(params: Parameters, tmp_path: Path) -> None:
    (tmp_path / "records" / "former").mkdir(parents=True)
    stage.main([])
    assert {path.name for path in (tmp_path / "records").iterdir()} == {"skd", stage.STARTS}
    assert {path.name for path in (tmp_path / "records" / "skd").iterdir()} == {
        "translation.jsonl",
        "arithmetic.jsonl",
        "svamp.jsonl",
    }
    scores = json.loads((tmp_path / "metrics" / "evaluate" / "skd.json").read_text())
    assert list(scores["tasks"]) == ["translation", "arithmetic"]
    assert list(scores["test_sets"]) == ["svamp"]
    assert scores["test_sets"]["svamp"]["models"]["skd"]["21"] == {"exact_match": 50.0}


def test_what_was_tested_is_not_tested_again(
    params: Parameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    for method in ("skd", "sft"):
        write_text(Path(f"models/students/{method}/arithmetic/20/model.safetensors"), "a")
    both = replace(params, methods=["skd", "sft"])
    first = stage.evaluate(both)
    asked: list[tuple[str, str]] = []
    fake = testing._test

    def seen(job, machine, line):
        asked.append((job.model, job.split.task))
        return fake(job, machine, line)

    monkeypatch.setattr(testing, "_test", seen)
    assert stage.evaluate(both) == first
    assert asked == []
    write_text(Path("models/students/skd/arithmetic/20/model.safetensors"), "b")
    stage.evaluate(both)
    assert set(asked) == {("skd", "arithmetic")}
