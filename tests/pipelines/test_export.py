"""The best student by validation, whole and loadable in one folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from pipelines.settings.experiment import Experiment
from pipelines.stages.export import ValidatedStudent, best, export
from skd.results.files import write_result
from skd.results.runs import ValidationScores
from tests.tiny import build

SCORES = {"sft": (50.0, 70.0), "skd": (70.0, 60.0)}


@pytest.fixture
def run_folder(tmp_path, monkeypatch) -> Path:
    """Two methods, one task, two seeds; test scores are nowhere to be read."""
    monkeypatch.chdir(tmp_path)
    for method, scores in SCORES.items():
        seeds = {str(seed): score for seed, score in zip((20, 21), scores, strict=True)}
        path = Path(f"models/students/{method}/translation/validation.json")
        write_result(path, ValidationScores(seeds))
        for seed in (20, 21):
            folder = Path(f"models/students/{method}/translation/{seed}")
            build(seed=seed, dtype=torch.float32).save_pretrained(folder)
        card = Path(f"reports/cards/translation-{method}.md")
        card.parent.mkdir(parents=True, exist_ok=True)
        card.write_text(f"# {method}")
    return tmp_path


def test_the_best_by_validation_is_exported_with_its_card(run_folder) -> None:
    chosen = export(Experiment(["translation"], ["sft", "skd"], [20, 21], [], [], [], []))
    assert chosen == {"translation": ValidatedStudent("sft", 21, 70.0)}
    folder = run_folder / "models" / "best" / "translation"
    assert (folder / "README.md").read_text() == "# sft"
    kept = run_folder / "models" / "students" / "sft" / "translation" / "21" / "model.safetensors"
    assert (folder / "model.safetensors").read_bytes() == kept.read_bytes()
    choice = json.loads((run_folder / "models" / "best" / "choice.json").read_text())
    assert choice == {"translation": {"method": "sft", "seed": 21, "score": 70.0}}


def test_of_equals_the_first_is_taken() -> None:
    equal = [ValidatedStudent("a", 1, 5.0), ValidatedStudent("b", 1, 5.0)]
    assert best(equal) is equal[0]
