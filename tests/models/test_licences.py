"""Licences of models: what was configured, a folder's README, a cached Hub snapshot's README."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipelines.runs.folders import BASE
from pipelines.schema import Params, load
from pipelines.stages.base import base, origin
from skd.models import licences
from skd.models.loading import write_reference
from skd.models.procedural import train_tokenizer
from skd.models.settings import FolderModel, HubModel, LayersModel
from tests.tiny import build

ROOT = Path(__file__).resolve().parents[1]
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
def params(tmp_path, monkeypatch) -> Params:
    """A working directory with a model folder of its own, `big`."""
    params = load(ROOT / "params.yaml")
    monkeypatch.chdir(tmp_path)
    tokenizer = train_tokenizer(["some text"] * 20, 300)
    model = build(vocab_size=len(tokenizer), num_hidden_layers=3, dtype=torch.float32)
    model.save_pretrained("big")
    tokenizer.save_pretrained("big")
    Path("big/README.md").write_text("---\nlicense: gemma\n---\n")
    return params


def test_a_folders_readme_is_recorded_and_a_part_of_it_has_its_licence(params):
    object.__setattr__(params.models, "teacher", FolderModel("folder", "big"))
    object.__setattr__(params.models, "student", LayersModel("layers", [0, 2]))
    pair = base(params)
    assert {key: pair["teacher"][key] for key in ("kind", "name", "license")} == {
        "kind": "folder", "name": "big", "license": "gemma",
    }  # fmt: skip
    assert (pair["student"]["kind"], pair["student"]["license"]) == ("layers", "gemma")
    assert pair["student"]["layers"] == 2


def test_a_configured_licence_wins(params):
    for role, licence in (("teacher", "mine"), ("student", None)):
        object.__setattr__(params.models, role, FolderModel("folder", "big", licence))
    pair = base(params)
    assert [pair[role]["license"] for role in ("teacher", "student")] == ["mine", "gemma"]


def test_a_hub_models_id_commit_and_licence_are_recorded(params, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "cache")
    cached(Path("cache"), "org/model", "---\nlicense: gemma\n---\n")
    for role, licence in (("teacher", None), ("student", "mine")):
        object.__setattr__(params.models, role, HubModel("hub", "org/model", license=licence))
        facts = {"id": "org/model", "revision": COMMIT, "trust_remote_code": False}
        write_reference(BASE / role, **facts)
    expected = {"kind": "hub", "id": "org/model", "revision": COMMIT}
    assert origin("teacher", params) == expected | {"license": "gemma"}
    assert origin("student", params) == expected | {"license": "mine"}


def test_the_parameters_take_a_licence_where_a_model_comes_from_elsewhere():
    assert FolderModel("folder", "a", license="MIT").license == "MIT"
    assert HubModel("hub", "a/b", license="MIT").license == "MIT"
