"""A stage ends with the DVC that started it, and DVC with `make repro`, whatever ends that."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.orchestration.repair import let_end
from pipelines.orphans import is_dvc
from tests.pipelines.conftest import Stages, chain, processes_in, wait_for

ROOT = Path(__file__).parents[2]
Project = Callable[[Stages], Path]
STAGE = """
import time
from collections.abc import Callable
from pathlib import Path
from pipelines.stages.command import run_command
def main():
    Path("began").touch()
    time.sleep(600)
run_command(main)
"""


def environment() -> dict[str, str]:
    here = Path(sys.executable).parent
    path = f"{here}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PYTHONPATH": str(ROOT), "PATH": path, "DVC_NO_ANALYTICS": "1"}


def at_work(project: Project, *words: str) -> tuple[Path, subprocess.Popen[bytes]]:
    """A project whose stage is at work, and the command that started it."""
    root = project(chain() | {"long": {"cmd": "python long.py", "outs": ["never"]}})
    (root / "long.py").write_text(STAGE)
    process = subprocess.Popen(
        [sys.executable, "-m", *words, "long"],
        cwd=root,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    wait_for((root / "began").exists)
    return root, process


@pytest.mark.parametrize(
    ("command", "signum"),
    [
        (("dvc", "repro"), signal.SIGKILL),
        (("pipelines.repro",), signal.SIGKILL),
        (("pipelines.repro",), signal.SIGTERM),
        (("pipelines.repro",), signal.SIGINT),
    ],
)
def test_nothing_goes_on_when_its_caller_is_gone(project: Project, command, signum) -> None:
    root, process = at_work(project, *command)
    process.send_signal(signum)
    assert process.wait(600) != 0
    wait_for(lambda: not processes_in(root))
    (root / "long.py").write_text("from pathlib import Path; Path('never').touch()")
    again = [sys.executable, "-m", "pipelines.repro", "long"]
    subprocess.run(again, cwd=root, env=environment(), check=True, capture_output=True)
    assert (root / "never").exists()


def test_a_stage_by_hand_has_no_dvc_to_end_with(tmp_path: Path) -> None:
    (tmp_path / "long.py").write_text(STAGE.replace("600", "2"))
    for more in ({}, {"DVC_STAGE": "long"}):
        subprocess.run(
            [sys.executable, "long.py"], cwd=tmp_path, env=environment() | more, check=True
        )


def test_the_next_run_waits_for_a_dvc_that_ends_but_not_for_good(project: Project, capfd) -> None:
    root, process = at_work(project, "dvc", "repro")
    began = time.monotonic()
    let_end(root, seconds=0.5)
    assert time.monotonic() - began >= 0.5
    assert "waiting for DVC to end" in capfd.readouterr().err
    process.kill()
    process.wait()
    wait_for(lambda: not processes_in(root))
    let_end(root, seconds=600)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("line", "is_one"),
    [
        ("/x/python -m dvc repro", True),
        ("dvc --wait-for-lock repro", True),
        ("/x/python -m pipelines.repro", False),
        ("/x/python -P runner.py none python -m dvc repro", False),
        ("", False),
    ],
)
def test_dvc_is_known_by_its_command_line(line: str, is_one: bool) -> None:
    assert is_dvc(line.split()) is is_one
