"""A killed DVC never stops the next one, and a living one is left alone."""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from dvc.dvcfile import Lockfile
from dvc.repo import Repo

from pipelines import sandbox
from pipelines.orchestration import repair as repair_module
from pipelines.orchestration.repair import repair
from tests.pipelines.conftest import Stages, chain, dvc, ran, wait_for

# DVC's own use of pygtrie.
pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value will soon:DeprecationWarning")

ROOT = Path(__file__).parents[2]
Project = Callable[[Stages], Path]
# Of a kind that no system gives to a process.
NOBODY = 2**31 - 1


def rwlock(root: Path, text: str) -> Path:
    lock = root / ".dvc" / "tmp" / "rwlock"
    lock.parent.mkdir(exist_ok=True)
    lock.write_text(text)
    return lock


def entries(root: Path, reader: int, writer: int) -> dict[str, Any]:
    """As DVC writes them while the stage `paint@red` runs."""
    return {
        "write": {str(root / "red.txt"): {"pid": writer, "cmd": "dvc repro"}},
        "read": {
            str(root / "seed.txt"): [
                {"pid": reader, "cmd": "dvc repro"},
                {"pid": writer, "cmd": "dvc repro"},
            ]
        },
    }


@contextmanager
def dvc_at_work(root: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A DVC that runs the stage `seed`, whose command sleeps; killed at the end of the block."""
    command = [sys.executable, "-m", "dvc", "repro", "-q", "seed"]
    process = subprocess.Popen(command, cwd=root, start_new_session=True)
    try:
        wait_for(lambda: (root / "started").exists())
        yield process
    finally:
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()  # first, since it tidies up where its command ends
        process.wait()
        for child in children:
            child.kill()


def sleeping_chain() -> Stages:
    stages = chain()
    stages["seed"]["cmd"] = "touch started && sleep 600 && echo x > seed.txt"
    return stages


# ---------------------------------------------------------------------- .dvc/tmp/rwlock
def test_a_cut_rwlock_stops_dvc_and_none_after_the_repair(project: Project) -> None:
    root = project(chain())
    whole = json.dumps(entries(root, NOBODY, NOBODY))
    lock = rwlock(root, whole[: len(whole) // 2])
    with pytest.raises(subprocess.CalledProcessError):
        dvc("repro", "-q", root=root)
    (line,) = repair(root)
    assert str(lock) in line
    dvc("repro", "-q", root=root)
    assert sorted(ran(root)) == ["blue", "join", "red", "seed"]


def test_a_rwlock_cut_anywhere_is_removed(project: Project) -> None:
    root = project(chain())
    whole = json.dumps(entries(root, NOBODY, NOBODY))
    for length in range(len(whole)):
        lock = rwlock(root, whole[:length])
        assert len(repair(root)) == 1, length
        assert not lock.exists(), length


@pytest.mark.parametrize("text", ["[]", "null", '{"write": []}', '{"read": {"a": [1]}}', "\0\0"])
def test_a_rwlock_of_another_shape_is_removed(project: Project, text: str) -> None:
    root = project(chain())
    lock = rwlock(root, text)
    assert len(repair(root)) == 1
    assert not lock.exists()


def test_entries_of_the_dead_are_taken_out_and_those_of_the_living_kept(project: Project) -> None:
    root = project(chain())
    lock = rwlock(root, json.dumps(entries(root, reader=os.getpid(), writer=NOBODY)))
    assert len(repair(root)) == 1
    living = {"pid": os.getpid(), "cmd": "dvc repro"}
    assert json.loads(lock.read_text()) == {
        "write": {},
        "read": {str(root / "seed.txt"): [living]},
    }
    assert repair(root) == []


def test_a_process_that_died_and_was_not_collected_holds_nothing(project: Project) -> None:
    root = project(chain())
    process = subprocess.Popen(["true"])
    wait_for(lambda: psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE)
    lock = rwlock(root, json.dumps(entries(root, process.pid, process.pid)))
    assert len(repair(root)) == 1
    assert json.loads(lock.read_text()) == {"write": {}, "read": {}}
    process.wait()


def test_a_process_that_started_after_the_entry_only_has_its_number(project: Project) -> None:
    root = project(chain())
    lock = rwlock(root, json.dumps(entries(root, os.getpid(), os.getpid())))
    before = psutil.Process().create_time() - 60
    os.utime(lock, (before, before))
    assert len(repair(root)) == 1
    dvc("repro", "-q", root=root)


@pytest.mark.parametrize("text", ["{}", '{"write": {}, "read": {}}'])
def test_a_readable_rwlock_stays_as_it_is(project: Project, text: str) -> None:
    root = project(chain())
    lock = rwlock(root, text)
    assert repair(root) == []
    assert lock.read_text() == text


def test_nothing_to_repair_is_no_error(project: Project, tmp_path: Path) -> None:
    assert repair(project(chain())) == []
    assert repair(tmp_path) == []


# ------------------------------------------------------------------------------ dvc.lock
def test_dvc_reads_a_dvc_lock_that_was_cut_anywhere(project: Project) -> None:
    root = project(chain())
    dvc("repro", "-q", root=root)
    whole = (root / "dvc.lock").read_text()
    lost_at_most = 1
    with Repo(str(root)) as repo:
        lock = Lockfile(repo, str(root / "dvc.lock"))
        for length in range(0, len(whole), 5):
            (root / "dvc.lock").write_text(whole[:length])
            repair(root)
            kept = lock.load().get("stages", {})
            begun = len(re.findall(r"^  \S+:\n", whole[:length], re.MULTILINE))
            assert len(kept) >= begun - lost_at_most, length
    (root / "dvc.lock").write_text(whole)
    assert repair(root) == []
    assert (root / "dvc.lock").read_text() == whole


@pytest.mark.parametrize("share", [0.0, 0.4, 0.75, 0.99])
def test_after_a_cut_dvc_lock_dvc_takes_the_results_from_its_cache(
    project: Project, share: float
) -> None:
    root = project(chain())
    dvc("repro", "-q", root=root)
    ran(root)
    lock = root / "dvc.lock"
    whole = lock.read_text()
    lock.write_text(whole[: int(share * len(whole))])
    (line,) = repair(root)
    assert str(lock) in line
    dvc("repro", "-q", root=root)
    assert lock.read_text() == whole
    assert ran(root) == []


# -------------------------------------------------------------------- a DVC that is alive
def test_what_is_cut_stays_while_dvc_works_in_the_project(project: Project) -> None:
    root = project(sleeping_chain())
    with dvc_at_work(root):
        lock = rwlock(root, '{"write": {"')
        (root / "dvc.lock").write_text("schema: '2.")
        assert repair(root) == []
        assert lock.read_text() == '{"write": {"'
        assert (root / "dvc.lock").read_text() == "schema: '2."
    assert len(repair(root)) == 2
    assert not lock.exists()


def test_a_dvc_at_work_keeps_what_it_holds_and_a_killed_one_nothing(project: Project) -> None:
    root = project(sleeping_chain())
    lock = root / ".dvc" / "tmp" / "rwlock"
    with dvc_at_work(root) as process:
        held = lock.read_text()
        assert str(process.pid) in held
        assert repair(root) == []
        assert lock.read_text() == held
    assert len(repair(root)) == 1
    assert json.loads(lock.read_text()) == {"write": {}, "read": {}}


@pytest.mark.parametrize("guard", ["lock", "rwlock.lock"])
def test_nothing_is_touched_while_somebody_holds_dvcs_locks(project: Project, guard: str) -> None:
    root = project(chain())
    lock = rwlock(root, "")
    with (lock.parent / guard).open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert repair(root) == []
    assert lock.exists()
    assert len(repair(root)) == 1


def test_dvc_in_a_project_within_this_one_is_no_obstacle(project: Project) -> None:
    root = project(sleeping_chain())
    outer = root.parent
    (outer / ".dvc").mkdir()
    rwlock(outer, "")
    with dvc_at_work(root):
        assert repair_module.dvc_processes(root)
        assert len(repair(outer)) == 1


# ---------------------------------------------------------------- every path of the README
def test_the_command_repairs_and_says_so(project: Project) -> None:
    root = project(chain())
    lock = rwlock(root, "")
    command = [sys.executable, "-m", "pipelines.orchestration.repair"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, check=True
    )
    assert str(lock) in done.stderr
    assert not lock.exists()


def test_a_run_in_a_copy_repairs_first(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # a real copy has the packages
    root = project(chain())
    rwlock(root, "")
    assert sandbox.repro(root, "-q").returncode == 0


def test_make_repro_calls_what_repairs_before_dvc_starts() -> None:
    planned = subprocess.run(
        ["make", "--dry-run", "repro"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    commands = [line for line in planned.stdout.splitlines() if " -m " in line]
    assert commands[-1].split(" -m ", 1)[1] == "pipelines.repro"
