"""The best student by validation, whole and loadable in one folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from pipelines.schema import load
from pipelines.stages.export import Candidate, best, export
from skd.files import write_json
from tests.tiny import build

ROOT = Path(__file__).parents[2]
SCORES = {"sft": (50.0, 70.0), "skd": (70.0, 60.0)}


@pytest.fixture
def run_folder(tmp_path, monkeypatch) -> Path:
    """Two methods, one task, two seeds; test scores are nowhere to be read."""
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(text)
    for method, scores in SCORES.items():
        seeds = {
            str(seed): {"validation": {"metric": score}}
            for seed, score in zip((20, 21), scores, strict=True)
        }
        facts = {"tasks": {"translation": {"seeds": seeds}}}
        write_json(Path(f"metrics/distill/{method}.json"), facts)
        for seed in (20, 21):
            folder = Path(f"models/students/{method}/translation/{seed}")
            build(seed=seed, dtype=torch.float32).save_pretrained(folder)
            (folder / "log.jsonl").write_text("{}")
        card = Path(f"reports/cards/translation-{method}.md")
        card.parent.mkdir(parents=True, exist_ok=True)
        card.write_text(f"# {method}")
    return tmp_path


def test_the_best_by_validation_is_exported_with_its_card(run_folder) -> None:
    params = load()
    params.experiment.tasks[:] = ["translation"]
    params.experiment.methods[:] = ["sft", "skd"]
    params.experiment.seeds[:] = [20, 21]
    chosen = export(params)
    assert chosen == {"translation": Candidate("sft", 21, 70.0)}
    folder = run_folder / "models" / "best" / "translation"
    assert (folder / "README.md").read_text() == "# sft"
    assert not (folder / "log.jsonl").exists()
    kept = run_folder / "models" / "students" / "sft" / "translation" / "21" / "model.safetensors"
    assert (folder / "model.safetensors").read_bytes() == kept.read_bytes()
    choice = json.loads((run_folder / "models" / "best" / "choice.json").read_text())
    assert choice == {"translation": {"method": "sft", "seed": 21, "score": 70.0}}


def test_of_equals_the_first_is_taken() -> None:
    equal = [Candidate("a", 1, 5.0), Candidate("b", 1, 5.0)]
    assert best(equal) is equal[0]
