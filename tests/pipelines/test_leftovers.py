"""What removed rows of params.yaml have left goes, and nothing else does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.orchestration import leftovers
from pipelines.orchestration.leftovers import ROWS, tidy

EXPERIMENT = {"tasks": ["kept"], "methods": ["kept"], "students": ["kept"]}
WRONG = [None, "", "experiment: [", "experiment: 3", "experiment: {tasks: 1}"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with a row that is named and one that is not, in each folder."""
    for folder in ROWS:
        (tmp_path / folder).mkdir(parents=True)
        for name in ("kept", "gone"):
            if folder.startswith("metrics"):
                (tmp_path / folder / f"{name}.json").write_text("{}")
            else:
                (tmp_path / folder / name).mkdir()
                (tmp_path / folder / name / "file").write_text("x")
        (tmp_path / folder / ".gone.partial").write_text("a stage's own business")
    (tmp_path / "models/base").mkdir()
    (tmp_path / "params.yaml").write_text(json.dumps({"experiment": EXPERIMENT}))
    return tmp_path


def names(root: Path) -> set[str]:
    return {path.stem for folder in ROWS for path in (root / folder).glob("[!.]*")}


def test_rows_that_nothing_names_go(root) -> None:
    said = tidy(root)
    assert names(root) == {"kept"}
    assert len(said) == len(ROWS)
    assert "removed data/gone: experiment.tasks does not name it" in said
    assert (root / "models/base").exists()
    assert tidy(root) == []


def test_nothing_goes_while_dvc_works(root, monkeypatch) -> None:
    monkeypatch.setattr(leftovers, "dvc_processes", lambda _: [1])
    assert tidy(root) == []
    assert names(root) == {"kept", "gone"}


@pytest.mark.parametrize("text", WRONG)
def test_parameters_that_are_wrong_take_nothing_away(root, text) -> None:
    (root / "params.yaml").unlink()
    if text is not None:
        (root / "params.yaml").write_text(text)
    assert tidy(root) == []
    assert names(root) == {"kept", "gone"}
