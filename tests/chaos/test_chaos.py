"""The suite of faults itself: it strikes, it compares, it tells what was not survived."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from chaos import __main__ as command
from chaos import page
from chaos.case import INSIDE, Case
from chaos.faults import FAULTS, LATE, Fault
from chaos.files import changed, cut_off
from chaos.processes import killed
from chaos.project import ROOT, TINY, Project
from chaos.same import differences
from pipelines import profile

PREPARE = "prepare@summarization"
# DVC's own use of pygtrie.
pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value will soon:DeprecationWarning")


# ------------------------------------------------------------------------ what is equal
def experiment(root: Path, **changes: str) -> Path:
    """Three outputs: weights, metrics with seconds, a log with seconds."""
    files = {
        "models/a/weights.txt": "1 2 3",
        "metrics/a.json": '{"took": {"seconds": 3.5}, "score": [1, {"seconds": 4}]}',
        "logs/a.csv": "step,loss,seconds\n1,0.5,2.0\n",
        "reports/results.csv": "metric,value\nchrf,50\nseconds,3\n",
        "reports/report.md": "took 3 s",
    }
    for name, text in (files | changes).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    hashes = {"models/a": str(hash(changes.get("models/a/weights.txt"))), "metrics/a.json": "1"}
    outs = [{"path": path, "md5": digest} for path, digest in hashes.items()]
    shown = ("logs/a.csv", "reports/results.csv", "reports/report.md")
    outs += [{"path": path, "md5": str(hash(changes.get(path)))} for path in shown]
    (root / "dvc.lock").write_text(yaml.safe_dump({"stages": {"a": {"outs": outs}}}))
    return root


@pytest.mark.parametrize(
    ("name", "text", "differs"),
    [
        ("metrics/a.json", '{"took": {"seconds": 9}, "score": [1, {"seconds": 5}]}', False),
        ("metrics/a.json", '{"took": {"seconds": 3.5}, "score": [2, {"seconds": 4}]}', True),
        ("logs/a.csv", "step,loss,seconds\n1,0.5,7.0\n", False),
        ("logs/a.csv", "step,loss,seconds\n1,0.25,2.0\n", True),
        ("logs/a.csv", "step,loss,seconds\n1,0.5,2.0\n2,0.5,2.0\n", True),
        ("reports/results.csv", "metric,value\nchrf,50\nseconds,8\n", False),
        ("reports/results.csv", "metric,value\nchrf,51\nseconds,3\n", True),
        ("reports/report.md", "took 4 s", False),
        ("reports/report.md", "", True),
        ("models/a/weights.txt", "1 2 4", True),
        ("models/a/more.txt", "1", True),
    ],
)
def test_seconds_are_no_difference_and_all_else_is(tmp_path, name, text, differs) -> None:
    alone = experiment(tmp_path / "alone")
    struck = experiment(tmp_path / "struck", **{name: text})
    assert bool(differences(struck, alone, ["a"])) is differs
    assert differences(alone, alone, ["a"]) == []


@pytest.mark.parametrize(("by", "differs"), [(1e-6, False), (0.1, True)])
def test_rounding_is_allowed_to_weights_where_asked_for(tmp_path, by, differs) -> None:
    roots = [experiment(tmp_path / name) for name in ("alone", "struck")]
    for root, value in zip(roots, (0.0, by), strict=True):
        save_file({"w": np.full(3, value)}, root / "models/a/weights.safetensors")
    assert bool(differences(*roots, ["a"], rounding=True)) is differs
    assert differences(*roots, ["a"])


def test_a_stage_without_a_record_is_a_difference(tmp_path) -> None:
    alone, struck = experiment(tmp_path / "alone"), experiment(tmp_path / "struck")
    (struck / "dvc.lock").write_text("stages: {}\n")
    assert differences(struck, alone, ["a"]) == ["dvc.lock has no a"]


# ------------------------------------------------------------------------- how it strikes
def spoilt(fault: str, number: int, code: str) -> str:
    asked = json.dumps({"fault": fault, "number": number})
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": f"{INSIDE}:{ROOT}", "CHAOS": asked},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


def test_the_clock_of_a_struck_process_jumps() -> None:
    code = "import time; print(len({round(time.time() / 999) for _ in range(2000)}))"
    assert int(spoilt("clock", 1, code)) > 5


def test_memory_is_refused_to_a_struck_process() -> None:
    code = "from skd.training import step; print(step.batch_loss.__qualname__)"
    assert "refused" in spoilt("no_memory", 1, code)
    assert "spoilt" in spoilt("no_number", 1, code)


@pytest.mark.parametrize("damage", [cut_off, changed])
def test_damage_is_damage(damage, tmp_path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(100))
    file.chmod(0o444)
    case = Case(Project.at(tmp_path), "a", False, random.Random(1))
    damage(file, case)
    assert file.read_bytes() != bytes(100)


def test_the_table_names_stages_and_parameters_that_are_there(tmp_path) -> None:
    graph = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    for name, fault in FAULTS.items():
        assert {stage.split("@")[0] for stage in fault.stages} <= set(graph), name
    assert {stage.split("@")[0] for stage in LATE} <= set(graph)
    smoke = yaml.safe_load(profile.compose("smoke", ROOT / "profiles"))
    for name in TINY:
        section = smoke
        for word in name.split("."):
            assert word in section or name == "runtime", name
            section = section.get(word, {})


def test_the_page_is_what_the_record_says() -> None:
    rows = command.read(command.RECORD)
    assert page.PAGE.read_text() == page.text(rows)
    assert {row["fault"] for row in rows} <= set(FAULTS)
    assert not [row for row in rows if row["outcome"] == "failed"]


# -------------------------------------------------------------------------- for real
@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    """The tiny experiment, as far as its data."""
    made = Project.at(tmp_path_factory.mktemp("chaos"))
    made.make(last=PREPARE)
    return made


def run(project: Project, monkeypatch, strike) -> list[dict]:
    monkeypatch.setitem(FAULTS, "toy", Fault("", strike, (PREPARE,), whole=False))
    words = ["--faults", "1", "--only", "toy", "--record", str(project.work.parent / "record")]
    with pytest.raises(SystemExit):
        command.main([*words, "--folder", str(project.work.parent)])
    return command.read(project.work.parent / "record")


@pytest.mark.slow
def test_a_killed_stage_is_survived_and_not_done_again(project, monkeypatch, capsys) -> None:
    def strike(case: Case) -> str:
        return killed("stage", case)

    rows = run(project, monkeypatch, strike)
    assert [row["outcome"] for row in rows] == ["survived"], rows
    assert rows == run(project, monkeypatch, strike)
    assert "survived 1 of 1 faults" in capsys.readouterr().out


@pytest.mark.slow
def test_another_result_is_not_survived(project, monkeypatch) -> None:
    """The repeated command finishes, and its data are others."""

    def strike(case: Case) -> str:
        case.begin()
        path = case.work / "params.yaml"
        path.write_text(path.read_text().replace("train_size: 300", "train_size: 310"))
        return "other data"

    (project.work.parent / "record").unlink(missing_ok=True)
    (row,) = run(project, monkeypatch, strike)
    assert row["outcome"] == "failed"
    assert "hash of data/summarization" in row["why"]
