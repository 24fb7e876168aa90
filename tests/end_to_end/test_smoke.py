"""The whole pipeline in a copy of this repository: from nothing to the report, and what reruns."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipelines.sandbox import copy_project, environment

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


def dvc(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=root,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )


def repro(root: Path, *arguments: str) -> str:
    ended = dvc(root, "repro", *arguments)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def ran(output: str) -> set[str]:
    return {
        line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage '")
    }


def edit(root: Path, change) -> None:
    path = root / "params.yaml"
    params = yaml.safe_load(path.read_text())
    change(params)
    path.write_text(yaml.safe_dump(params, sort_keys=False))


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("smoke") / "project"
    copy_project(root, "smoke")

    def shrink(params) -> None:  # seconds, not minutes: this tests the plumbing
        params["data"]["summarization"] |= {
            "train_size": 300,
            "validation_size": 20,
            "test_size": 30,
        }
        for model in ("teacher", "student"):
            params["models"][model]["steps"] = 10
        params["sft"]["teacher"] |= {"steps": 20, "validate_every": 10, "validation_examples": 10}
        params["sft"]["student"] |= {"steps": 4, "validation_examples": 10}
        params["distill"]["optimisation"] |= {
            "steps": 8,
            "validate_every": 4,
            "validation_examples": 10,
            "checkpoint_every": 4,
        }
        params["budget"]["summarization"]["student_examples"] = 40

    edit(root, shrink)
    repro(root)
    return root


def test_the_report_and_its_numbers_are_there(project) -> None:
    text = (project / "reports/report.md").read_text()
    for name in ("skd", "on_policy_kd", "teacher", "student_init"):
        assert name in text
    with (project / "reports/results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["method"] for row in rows} == {
        "teacher", "student_init", "student_init_instruct", "sft", "on_policy_kd", "skd",
    }  # fmt: skip
    assert list((project / "reports/figures").glob("*.png"))
    for path in (project / "reports/cards").iterdir():
        assert "summarization" in path.read_text()
