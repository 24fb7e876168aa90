"""Licences of models: what was configured, a folder's README, a cached Hub snapshot's README."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipelines.parameters import read_parameters
from pipelines.runs.inputs import DATA
from pipelines.stages.base import Parameters, base, origin
from skd.data.settings import Procedural
from skd.files import jsonl, write_text
from skd.models import licences
from skd.models.folders import ModelReference, write_reference
from skd.models.procedural import train_tokenizer
from skd.models.settings import FolderModel, HubModel, LayersModel, StudentModel
from skd.results.data import DataCard, Duplicates
from skd.results.files import write_result
from skd.results.pair import ModelOrigin, PairResult
from tests.tiny import build

ROOT = Path(__file__).resolve().parents[2]
COMMIT = "0123456789" * 4


@pytest.mark.parametrize(
    ("readme", "licence"),
    [
        ("---\nlicense: apache-2.0\ntags: [a]\n---\n# Model\n", "apache-2.0"),
        ("\ufeff---\r\nlicense: mit\r\n---\r\n", "mit"),
        ("---\nlicense: other\nlicense_name: qwen-research\n---\n", "qwen-research"),
        ("---\nlicense: other\n---\n", "other"),
        ("---\nlicense: [mit, apache-2.0]\n---\n", "mit, apache-2.0"),
        ("---\ntags: [a]\n---\nlicense: mit\n", None),
        ("# Model\n---\nlicense: mit\n---\n", None),
        ("---\nlicense: mit\n", None),
        ("---\n{{{\n---\n", None),
        ("---\njust text\n---\n", None),
        ("", None),
    ],
)
def test_only_the_front_matter_counts(readme, licence):
    assert licences.stated(readme) == licence


def test_a_folder_without_a_readme_states_nothing(tmp_path):
    assert licences.of_folder(tmp_path) is None
    (tmp_path / "README.md").write_bytes(b"\xff\xfe\xff")
    assert licences.of_folder(tmp_path) is None


def test_a_hub_model_is_read_from_its_cached_snapshot(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    cached(tmp_path, "org/model", "---\nlicense: gemma\n---\n")
    assert licences.of_hub("org/model", COMMIT) == "gemma"
    assert licences.of_hub("org/model", "9" * 40) is None
    assert licences.of_hub("org/other", COMMIT) is None


def cached(cache: Path, name: str, readme: str) -> None:
    folder = cache / f"models--{name.replace('/', '--')}" / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    (folder / "README.md").write_text(readme)


# ---------------------------------------------------------------- stage `base`
@pytest.fixture
def parameters(tmp_path, monkeypatch) -> Parameters:
    """Of a working directory with a model folder of its own, `big`."""
    parameters = read_parameters(Parameters, file=ROOT / "params.yaml")
    monkeypatch.chdir(tmp_path)
    tokenizer = train_tokenizer(["some text"] * 20, 300)
    model = build(vocab_size=len(tokenizer), num_hidden_layers=3, dtype=torch.float32)
    model.save_pretrained("big")
    tokenizer.save_pretrained("big")
    Path("big/README.md").write_text("---\nlicense: gemma\n---\n")
    for task in parameters.tasks:
        source = Procedural("procedural")
        kept = Duplicates(0, 0, 0)
        card = DataCard("translation", None, "{source}", source, None, {}, kept, 0, "")
        write_result(DATA / task / "card.json", card)
        rows = [{"id": f"{i}", "source": f"some {i}", "target": "text"} for i in range(8)]
        write_text(DATA / task / "train.jsonl", jsonl(rows))
    return parameters


def of(parameters: Parameters, teacher: FolderModel, student: StudentModel) -> PairResult:
    """What the stage says of these two."""
    models = replace(parameters.models, teacher=teacher, student=student)
    return base(replace(parameters, models=models))


def test_a_folders_readme_is_recorded_and_a_part_of_it_has_its_licence(parameters):
    pair = of(
        parameters,
        FolderModel("folder", "big"),
        LayersModel("layers", [0, 2], calibration_rows=2, heal=None),
    )
    assert pair.teacher.origin == ModelOrigin("folder", "gemma", name="big")
    assert pair.student.origin == ModelOrigin("layers", "gemma", name="big")
    assert (pair.teacher.size.layers, pair.student.size.layers) == (3, 2)


def test_a_configured_licence_wins(parameters):
    pair = of(parameters, FolderModel("folder", "big", "mine"), FolderModel("folder", "big"))
    assert (pair.teacher.origin.license, pair.student.origin.license) == ("mine", "gemma")


def test_a_hub_models_id_commit_and_licence_are_recorded(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    cached(tmp_path / "cache", "org/model", "---\nlicense: gemma\n---\n")
    write_reference(tmp_path, ModelReference(id="org/model", revision=COMMIT))
    for configured, told in ((None, "gemma"), ("mine", "mine")):
        made = origin(HubModel("hub", "org/model", license=configured), tmp_path)
        assert made == ModelOrigin("hub", told, id="org/model", revision=COMMIT)


def test_the_parameters_take_a_licence_where_a_model_comes_from_elsewhere():
    assert FolderModel("folder", "a", license="MIT").license == "MIT"
    assert HubModel("hub", "a/b", license="MIT").license == "MIT"
