"""Switching params.yaml between profiles."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipelines.profile import compose, use
from pipelines.runs.scratch import fingerprint
from skd.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def project(tmp_path) -> Path:
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    return tmp_path


def test_the_former_parameters_are_kept(project) -> None:
    (project / "params.yaml").write_text("mine")
    use("smoke", project)
    assert (project / "params.yaml").read_text() == compose("smoke", project / "profiles")
    assert (project / "params.yaml.previous").read_text() == "mine"


def test_what_stages_wrote_for_tasks_of_another_profile_goes(project) -> None:
    for task in ("translation", "summarization"):
        (project / "data" / task).mkdir(parents=True)
    use("smoke", project)  # its one task is summarization
    assert [path.name for path in (project / "data").iterdir()] == ["summarization"]


def test_a_profile_that_is_not_valid_changes_nothing(project) -> None:
    (project / "profiles" / "bad.yaml").write_text("sft: {teacher: 3}")
    (project / "params.yaml").write_text("mine")
    with pytest.raises(UserError, match=r"bad\.yaml.*sft"):
        use("bad", project)
    assert (project / "params.yaml").read_text() == "mine"


def test_a_model_folder_s_fingerprint_is_of_its_names_and_contents(tmp_path) -> None:
    seen = set()
    for name, content in (("a", "1"), ("a", "2"), ("b", "2")):
        folder = tmp_path / "model"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / name).write_text(content)
        seen |= {fingerprint(folder), fingerprint(folder)}
    assert len(seen) == 3
