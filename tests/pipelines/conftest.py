"""A toy DVC project to run flows on, and the one Prefect server of the session."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

Stages = dict[str, dict[str, Any]]


@pytest.fixture(scope="session")
def empty_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`dvc init` once; copies of it are cheap."""
    root = tmp_path_factory.mktemp("empty")
    command = [sys.executable, "-m", "dvc", "init", "--no-scm", "-q"]
    env = os.environ | {"DVC_NO_ANALYTICS": "1"}
    subprocess.run(command, cwd=root, check=True, env=env)
    return root


@pytest.fixture
def project(
    empty_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Stages], Path]:
    """Write the stages as a DVC project and make it the working directory."""

    def build(stages: Stages) -> Path:
        root = tmp_path / "project"
        shutil.copytree(empty_project, root)
        (root / "params.yaml").write_text("colours: [red, blue]\ntext: hello\n")
        graph = {"vars": ["params.yaml"], "stages": stages}
        (root / "dvc.yaml").write_text(yaml.safe_dump(graph, sort_keys=False))
        monkeypatch.chdir(root)
        return root

    return build


def chain() -> Stages:
    """seed → paint@red, paint@blue → join; every command leaves a line in `ran`."""
    return {
        "seed": {
            "cmd": "echo seed >> ran && echo ${text} > seed.txt",
            "params": ["text"],
            "outs": ["seed.txt"],
            "meta": {"timeout_seconds": 60, "retries": 2, "tags": ["cheap"]},
        },
        "paint": {
            "matrix": {"colour": "${colours}"},
            "cmd": "echo ${item.colour} >> ran && cp seed.txt ${item.colour}.txt",
            "deps": ["seed.txt"],
            "outs": ["${item.colour}.txt"],
        },
        "join": {
            "cmd": "echo join >> ran && cat red.txt blue.txt > join.txt",
            "deps": ["red.txt", "blue.txt"],
            "outs": ["join.txt"],
        },
    }


def dvc(*words: str, root: Path) -> str:
    env = os.environ | {"DVC_NO_ANALYTICS": "1"}
    command = [sys.executable, "-m", "dvc", *words]
    done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=True)
    return done.stdout


def ran(root: Path) -> list[str]:
    """Which commands ran since the last call, in order."""
    log = root / "ran"
    lines = log.read_text().split() if log.exists() else []
    log.unlink(missing_ok=True)
    return lines


def processes_in(root: Path) -> list[str]:
    """Command lines of the processes that work inside `root`, this one apart."""
    found = []
    for process in psutil.process_iter(["cwd", "cmdline", "pid"]):
        cwd = process.info["cwd"]
        if cwd and Path(cwd).is_relative_to(root) and process.info["pid"] != os.getpid():
            found.append(" ".join(process.info["cmdline"] or []))
    return found


def wait_for(condition: Callable[[], bool], seconds: float = 600.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.05)


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=300):
        yield
