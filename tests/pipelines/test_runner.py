"""The supervisor: output streams, time limits and cancelling leave no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.orchestration import runner
from tests.pipelines.conftest import processes_in, wait_for

PYTHON = [sys.executable, "-c"]
# Seconds that no machine needs: the end of a test that would otherwise wait for ever.
PATIENCE = 600.0


@pytest.fixture
def lifeline() -> Iterator[runner.Lifeline]:
    line = runner.Lifeline()
    yield line
    line.close()


def ignore(_line: str) -> None:
    return None


def test_output_of_both_streams_arrives_line_by_line_while_the_command_runs(
    tmp_path: Path, lifeline: runner.Lifeline
) -> None:
    def answer(line: str) -> None:
        if line == "two":
            (tmp_path / "answer").touch()

    script = "echo one; echo two >&2; until test -e answer; do sleep 0.1; done; echo three"
    ended = runner.run(
        ["sh", "-c", script], lifeline, answer, cwd=tmp_path, timeout_seconds=PATIENCE
    )
    assert ended == runner.Ended(0, ("one", "two", "three"))


def test_the_status_of_the_command_is_kept_and_the_tail_is_bounded(
    tmp_path: Path, lifeline: runner.Lifeline
) -> None:
    ended = runner.run(["sh", "-c", "seq 100; exit 3"], lifeline, ignore, cwd=tmp_path)
    assert ended.status == 3
    assert ended.tail == tuple(str(n) for n in range(101 - runner.TAIL_LINES, 101))


def test_a_time_limit_ends_the_command_and_its_grandchildren(
    tmp_path: Path, lifeline: runner.Lifeline
) -> None:
    ended = runner.run(
        ["sh", "-c", "sleep 600 & sh -c 'sleep 601; true'; true"],
        lifeline,
        ignore,
        cwd=tmp_path,
        timeout_seconds=0.5,
    )
    assert ended.status == runner.TIMED_OUT
    assert "0.5 s" in ended.tail[-1]
    assert processes_in(tmp_path) == []


def test_cutting_the_lifeline_ends_every_command_on_it(
    tmp_path: Path, lifeline: runner.Lifeline
) -> None:
    ends: list[runner.Ended] = []

    def one() -> None:
        ends.append(runner.run(["sleep", "600"], lifeline, ignore, cwd=tmp_path))

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    wait_for(lambda: processes_in(tmp_path).count("sleep 600") == 2)
    lifeline.end()
    for thread in threads:
        thread.join(PATIENCE)
    assert [ended.status for ended in ends] == [runner.CANCELLED] * 2
    assert processes_in(tmp_path) == []


def test_a_command_that_ignores_interrupts_is_ended_all_the_same(
    tmp_path: Path, lifeline: runner.Lifeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "ESCALATION", ((signal.SIGINT, 0.2), (signal.SIGKILL, PATIENCE)))
    stubborn = "import signal, time; signal.signal(2, signal.SIG_IGN); print(1); time.sleep(600)"
    child = subprocess.Popen(
        ["sh", "-c", f'{sys.executable} -uc "{stubborn}"; echo unwound'],
        stdout=subprocess.PIPE,
        cwd=tmp_path,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "1\n"
    runner.end(child)
    assert child.stdout.read() == "unwound\n"  # only the child's child was killed
    child.stdout.close()
    assert processes_in(tmp_path) == []


def test_what_a_command_leaves_in_the_background_ends_with_it(
    tmp_path: Path, lifeline: runner.Lifeline
) -> None:
    ended = runner.run(["sh", "-c", "sleep 600 & echo done"], lifeline, ignore, cwd=tmp_path)
    assert ended == runner.Ended(0, ("done",))
    assert processes_in(tmp_path) == []


def test_the_command_ends_when_its_caller_is_killed(tmp_path: Path) -> None:
    caller = (
        "from pathlib import Path; from pipelines.orchestration import runner;"
        f"runner.run(['sleep', '600'], runner.Lifeline(), print, cwd=Path({str(tmp_path)!r}))"
    )
    process = subprocess.Popen([*PYTHON, caller])
    wait_for(lambda: "sleep 600" in processes_in(tmp_path))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_for(lambda: processes_in(tmp_path) == [])
