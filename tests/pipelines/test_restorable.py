"""What DVC's cache has lost of an object comes into no project: the stage makes it again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.orchestration.graph import cache, plan
from pipelines.orchestration.restorable import take_out_damaged
from pipelines.repro import repro
from tests.pipelines.conftest import Stages

Project = Callable[[Stages], Path]
# DVC's own use of pygtrie.
pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value will soon:DeprecationWarning")

STAGES: Stages = {
    "make": {
        "cmd": "echo make >> ran && mkdir -p out/in && cat in > out/a && echo b > out/in/b",
        "deps": ["in"],
        "outs": ["out"],
    },
    "use": {
        "cmd": "echo use >> ran && cat out/a out/in/b > used",
        "deps": ["out"],
        "outs": ["used"],
    },
}


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def changed(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)


def gone(path: Path) -> None:
    path.unlink()


def damage(path: Path, how: Callable[[Path], None]) -> None:
    """As a disk does it: DVC's protection and the time stay."""
    before = path.stat()
    path.chmod(0o644)
    how(path)
    if path.exists():
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        path.chmod(0o444)


def objects(root: Path) -> list[Path]:
    return sorted(path for path in (root / ".dvc/cache/files").rglob("*") if path.is_file())


def ran(root: Path) -> list[str]:
    return (root / "ran").read_text().split()


@pytest.fixture
def root(project: Project) -> Path:
    made = project(STAGES)
    (made / "in").write_text("a\n")
    assert repro([], made) == 0
    return made


@pytest.mark.parametrize("how", [cut_off, changed, gone])
@pytest.mark.parametrize("number", range(4))
def test_an_output_that_is_gone_comes_back_right_whatever_the_cache_lost(
    root: Path, number: int, how, capfd
) -> None:
    assert len(objects(root)) == 4  # a list, its two files, the use of them
    damage(objects(root)[number], how)
    shutil.rmtree(root / "out")
    (root / "used").unlink()
    assert repro([], root) == 0
    assert (root / "out/a").read_text() == "a\n"
    assert (root / "used").read_text() == "a\nb\n"
    assert ("took out of DVC's cache" in capfd.readouterr().err) is (how is not gone)
    assert len(objects(root)) == 4
    assert [stage.name for stage in plan(root) if not stage.fresh] == []


def test_a_former_value_whose_object_is_damaged_is_made_again(root: Path) -> None:
    """It stands in no dvc.lock any more."""
    (old,) = [path for path in objects(root) if path.read_text() == "a\n"]
    (root / "in").write_text("c\n")
    assert repro([], root) == 0
    damage(old, changed)
    (root / "in").write_text("a\n")
    assert repro([], root) == 0
    assert (root / "used").read_text() == "a\nb\n"
    assert ran(root) == ["make", "use"] * 2 + ["make"]


def test_what_is_whole_stays_and_nothing_runs(root: Path, capfd) -> None:
    shutil.rmtree(root / "out")
    assert repro([], root) == 0
    assert ran(root) == ["make", "use"]
    assert "took out" not in capfd.readouterr().err


def test_other_commands_outputs_are_not_read(root: Path) -> None:
    damage(objects(root)[0], changed)
    assert take_out_damaged(cache(root), root / "dvc.lock", ["echo nothing"]) == []
    assert len(objects(root)) == 4


@pytest.mark.parametrize("text", ["", "[1]", "stages:\n  a: [", "stages:\n  a: 3\n", "\0"])
def test_a_lock_file_that_cannot_be_read_names_nothing(root: Path, text: str) -> None:
    shutil.rmtree(root / ".dvc/cache/runs")
    (root / "dvc.lock").write_text(text)
    assert take_out_damaged(cache(root), root / "dvc.lock", [STAGES["make"]["cmd"]]) == []
