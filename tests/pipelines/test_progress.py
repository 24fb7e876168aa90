"""What a stage announces and logs is what is shown of it, while it trains and no longer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import watch
from pipelines.orchestration import pace
from pipelines.runs.progress import (
    FINISHED,
    LOG,
    PROGRESS,
    Announcement,
    PlannedRun,
    RunStanding,
    Standing,
    announced,
    last_row,
    standing,
    standings,
)
from skd.results.files import write_result

RUNS = [PlannedRun(f"run-{name}", f".scratch/{name}", 100) for name in "abc"]


def log(root: Path, name: str, steps: int, loss: float = 2.0) -> None:
    folder = root / ".scratch" / name
    folder.mkdir(parents=True, exist_ok=True)
    rows = [json.dumps({"step": step, "loss": loss}) for step in range(1, steps + 1)]
    (folder / LOG).write_text("".join(row + "\n" for row in rows))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_STAGE", "distill@skd")
    return tmp_path


def test_a_stage_stands_where_its_logs_say(root) -> None:
    with announced(RUNS):
        now = standing(root, "distill@skd")
        assert now is not None
        assert (now.finished, now.done, now.steps, now.loss) == (0, 0, 300, None)
        log(root, "a", 40, loss=1.0)
        log(root, "b", 10, loss=2.0)
        log(root, "c", 70)  # stopped early
        (root / ".scratch/c" / FINISHED).touch()
        (now,) = standings(root)
        assert (now.finished, now.done, now.loss) == (1, 150, 1.5)
        assert [run.name for run in now.training] == ["run-a", "run-b"]
    assert standings(root) == []


def test_what_a_killed_stage_announced_is_not_shown(root) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    write_result(root / PROGRESS / "sft.json", Announcement("sft", gone.pid, RUNS))
    assert standings(root) == []
    write_result(root / PROGRESS / "sft.json", Announcement("sft", os.getpid(), RUNS))
    assert [now.stage for now in standings(root)] == ["sft"]


def test_a_row_that_is_being_written_does_not_count(tmp_path) -> None:
    path = tmp_path / LOG
    assert last_row(path) is None
    path.write_text('{"step": 1')
    assert last_row(path) is None
    long = json.dumps({"step": 7, "loss": 1.0, "words": "x" * 300})
    path.write_text(f"{long}\n" * 50 + '{"step": 8, "lo')
    assert last_row(path)["step"] == 7


def test_the_time_left_follows_the_pace_of_the_last_minutes() -> None:
    now = [0.0]
    left = pace.Pace(clock=lambda: now[0]).left

    def at(seconds: float, done: int) -> float | None:
        now[0] = seconds
        return left(Standing("sft", [RunStanding("run", 1000, done, False, None)]))

    assert at(0, 500) is None  # found finished: no pace yet
    assert at(10, 510) == pytest.approx(490)
    assert at(20, 530) == pytest.approx(470 * 20 / 30)
    for second in range(30, 400, 10):  # two steps a second from here on
        said = at(second, 530 + 2 * (second - 20))
    assert said == pytest.approx((1000 - 530 - 2 * 370) / 2)


def test_the_lines_name_runs_steps_loss_and_time(root) -> None:
    with announced(RUNS):
        log(root, "a", 40, loss=1.0)
        (now,) = standings(root)
        text = pace.line(now, 120.0)
        assert text == "0 of 3 runs, 40 of 300 steps, loss 1.000, about 2 min left"
        lines = watch.Watch(root).lines()
        assert lines == [
            "distill@skd: 0 of 3 runs, 40 of 300 steps, loss 1.000",
            "    run-a: 40 of 100 steps, loss 1.000",
        ]


def test_experiments_are_watched_beside_the_workspace(root) -> None:
    there = root / watch.EXPERIMENTS / "k5"
    announcement = Announcement("sft", os.getpid(), RUNS)
    write_result(there / PROGRESS / "sft.json", announcement)
    assert watch.Watch(root).lines() == ["k5: sft: 0 of 3 runs, 0 of 300 steps"]
