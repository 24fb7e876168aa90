"""Wall time: every stage that left its seconds is counted once, and nothing of another run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from skd.report.reading.parts import environments, read_parts
from skd.report.sections.provenance import wall_time
from tests.report.conftest import built

ITEMS = {"translation", "skd", "narrow", "starts"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    def leave(name: str, seconds: float | None, device: str | None = "cpu") -> None:
        path = tmp_path / "metrics" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        took = {"seconds": seconds, "environment": {} if device is None else {"device": device}}
        path.write_text(json.dumps({"other": 1} if seconds is None else {"took": took}))

    leave("base", 60.0)
    leave("fairness", 30.0, "cuda")
    leave("prepare/translation", 2.0, device=None)
    leave("distill/skd", 100.0)
    leave("distill/of_an_earlier_run", 1e6, "tpu")
    leave("sweep", 8.0)
    leave("scaling/narrow", 40.0)
    leave("later/starts", 5.0)  # a stage that nobody has thought of yet
    leave("untimed", None)
    return tmp_path


def test_every_stage_of_the_run_is_counted_once_and_no_other(root):
    parts = read_parts(root, ITEMS)
    assert sorted((part.stage, part.took.seconds) for part in parts) == [
        ("base", 60.0),
        ("distill", 100.0),
        ("fairness", 30.0),
        ("later", 5.0),
        ("prepare", 2.0),
        ("scaling", 40.0),
        ("sweep", 8.0),
    ]
    lines = wall_time(parts).splitlines()
    assert lines[2] == "| distill | 1 | 1 min 40 s | 40.8 |"  # the longest first
    assert lines[-1] == "| **all** | 7 | **4 min 05 s** |  |"


def test_machines_that_differ_are_all_named(root):
    assert environments(read_parts(root, ITEMS)) == [("device", "cpu / cuda")]


def test_the_graphs_stages_with_metrics_are_all_in_the_report(make_tree):
    root = make_tree({"sft": 50, "skd": 70}, {"arithmetic": "arithmetic"})
    graph = yaml.safe_load((Path(__file__).parents[2] / "dvc.yaml").read_text())["stages"]
    left = {
        Path(entry if isinstance(entry, str) else next(iter(entry))).parts[1].removesuffix(".json")
        for stage in graph.values()
        for entry in stage.get("metrics", [])
    }
    for name in left:
        path = root / "metrics" / f"{name}.json"
        if path.exists():
            path.write_text(json.dumps(json.loads(path.read_text()) | {"took": {"seconds": 1.0}}))
        elif not path.with_suffix("").exists():
            path.with_suffix("").mkdir()
            (path.with_suffix("") / "skd.json").write_text('{"took": {"seconds": 1.0}}')
    text = built(root)["provenance"]
    table = text.split("| stage | parts |")[1].split("**all**")[0]
    assert set(re.findall(r"^\| (\w+) \|", table, re.MULTILINE)) == left
