"""The command line that stages of one row share."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.stages import distill, scaling
from pipelines.stages.item import run_item
from skd.errors import UserError

PARAMS = (Path(__file__).parents[2] / "params.yaml").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch) -> Path:
    (tmp_path / "params.yaml").write_text(PARAMS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_named_row_is_done_and_its_facts_are_written(project):
    def work(params, name):
        return {"kind": params.methods[name].method}

    run_item(["skd"], work, None, argument="method", section="methods", metrics="somewhere")
    facts = json.loads((project / "metrics" / "somewhere" / "skd.json").read_text())
    assert facts["kind"] == "skd"
    assert facts["seconds"] > 0
    assert facts["environment"]["device"]


@pytest.mark.parametrize(
    ("stage", "row"),
    [(distill, "methods.none"), (scaling, "scaling.students.none")],
)
def test_a_row_that_is_not_there_is_named_before_anything_runs(project, stage, row):
    with pytest.raises(UserError, match=f"^{row} is missing in params.yaml$"):
        stage.main(["none"])
    assert not (project / "metrics").exists()
