"""A teacher and a student with different tokenizers through the stages, to the exported student."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from pipelines.runs import folders
from pipelines.runs.training import save_model
from skd.generate import main as ask
from skd.models.loading import load_tokenizer
from skd.models.procedural import procedural_model
from skd.models.settings import ProceduralModel
from tests.end_to_end.stages import run_stages, tiny_experiment
from tests.two_tokenizers import large, small

pytestmark = pytest.mark.slow
TASK = "summarization"
METHODS = ["sft", "seq_kd", "supervised_kd", "on_policy_kd", "student_and_teacher"]


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """All stages, run once."""
    root = tmp_path_factory.mktemp("tokenizers")
    for seed, (role, tokenizer) in enumerate((("teacher", large()), ("student", small()))):
        sizes = ProceduralModel("procedural", hidden_size=32, layers=2, heads=2, steps=0, seed=seed)
        save_model(procedural_model(sizes, tokenizer), tokenizer, root / "input/models" / role)
    run_stages(root, parameters(root))
    return root


def parameters(root: Path) -> dict:
    params = tiny_experiment(TASK, METHODS)
    params["data"][TASK] |= {"train_size": 60, "validation_size": 8, "test_size": 10}
    params["budget"] = {TASK: {"max_prompt_tokens": 900, "max_new_tokens": 40}}
    params["models"] = {
        "cross_tokenizer": "uld",
        **{
            role: {"kind": "folder", "path": str(root / "input/models" / role), "license": "MIT"}
            for role in ("teacher", "student")
        },
    }
    params["report"]["reference_method"] = "supervised_kd"
    params["probe"]["methods"] = []
    return params


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def test_every_method_without_shared_ids_is_in_the_report(project) -> None:
    with (project / "reports/results.csv").open() as file:
        found = list(csv.DictReader(file))
    assert {row["method"] for row in found} >= {"teacher", "student_init", *METHODS}
    text = (project / "reports/report.md").read_text()
    assert all(f"`{method}`" in text for method in METHODS)


def test_the_teacher_was_asked_in_its_own_ids(project) -> None:
    assert read(project / "metrics/base.json")["cross_tokenizer"]
    (known,) = read(project / "metrics/distill/supervised_kd.json")["tasks"][TASK].values()
    (sampled,) = read(project / "metrics/distill/on_policy_kd.json")["tasks"][TASK].values()
    for run in (known, sampled):
        assert run["teacher_tokens"] > 0


def test_the_best_student_keeps_its_own_tokenizer(project, monkeypatch, capsys) -> None:
    monkeypatch.chdir(project)
    best = folders.BEST / TASK
    own = load_tokenizer(best)
    assert own.get_vocab() == small().get_vocab() != large().get_vocab()
    ask([str(best), "the cat", "--max-tokens", "8", "--device", "cpu"])
    assert capsys.readouterr().out.endswith("\n")
