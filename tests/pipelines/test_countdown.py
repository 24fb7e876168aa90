"""What `make repro` says beforehand and while it runs: stages, their number, the time left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.calibration import fixed_work
from pipelines.orchestration.countdown import (
    Countdown,
    about,
    expected_seconds,
    recorded_seconds,
    slowness,
)
from pipelines.orchestration.graph import plan
from pipelines.repro import repro
from tests.pipelines.conftest import chain

# DVC's own use of pygtrie.
pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value will soon:DeprecationWarning")
SECONDS = {"base": 60.0, "distill@skd": 120.0, "evaluate": 60.0}
NAMES = ["code", "base", "distill@skd", "evaluate"]


def record(root: Path, name: str, seconds: float, work: float | None = None) -> None:
    path = root / "metrics" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"took": {"seconds": seconds, "fixed_work": work}}))


def test_what_stages_took_is_read_where_it_stands(tmp_path) -> None:
    record(tmp_path, "base", 60.0)
    record(tmp_path, "distill/skd", 120.0)
    (tmp_path / "metrics" / "code.json").write_text('{"other": 1}')
    assert recorded_seconds(tmp_path) == {"base": 60.0, "distill@skd": 120.0}


def test_a_machine_is_as_slow_as_its_fixed_work(tmp_path) -> None:
    assert slowness(tmp_path) is None
    record(tmp_path, "base", 60.0)
    assert slowness(tmp_path) is None
    record(tmp_path, "base", 60.0, work=1e-6)
    assert slowness(tmp_path) > 1000
    assert fixed_work() > 0


@pytest.mark.parametrize(
    "text", ["", '{"took": {"sec', "[]", "null", '{"took": 3}', '{"took": {"seconds": "x"}}', "\0"]
)
def test_a_damaged_file_of_metrics_says_nothing_of_seconds(tmp_path, text) -> None:
    record(tmp_path, "base", 60.0)
    (tmp_path / "metrics" / "base.json").write_text(text)
    assert recorded_seconds(tmp_path) == {}
    assert slowness(tmp_path) is None


def countdown(names=NAMES, seconds=SECONDS, expected=SECONDS, slowness=1.0) -> Countdown:
    return Countdown(names, seconds, expected, slowness)


def test_the_opening_scales_the_last_run() -> None:
    assert countdown(slowness=1.5).opening() == (
        "4 stages to run, about 6 min: the last run took 4 min on a machine 1.50 times as fast"
    )
    assert countdown(slowness=None).opening() == (
        "4 stages to run, about 4 min: the last run took 4 min"
    )
    assert countdown(expected=SECONDS | {"base": 540.0}, slowness=None).opening() == (
        "4 stages to run, about 12 min: the last run took 4 min, with now 3.0 times as much to do"
    )
    assert "no earlier run" in countdown(["code"], {}, {}).opening()
    assert "nothing to do" in countdown([]).opening()


def test_what_is_left_follows_the_pace_of_the_stages_that_are_over() -> None:
    run = countdown()
    assert run.begin("code", 0.0) == "stage 1 of 4: code, about 4 min left"
    assert run.begin("base", 1.0) == "stage 2 of 4: base, about 4 min left"
    # `base` took two minutes instead of one, so the rest will take twice as long, too
    assert run.begin("distill@skd", 120.0) == "stage 3 of 4: distill@skd, about 6 min left"
    assert run.begin("evaluate", 360.0) == "stage 4 of 4: evaluate, about 2 min left"


def test_what_came_from_the_cache_says_nothing_of_the_pace() -> None:
    run = countdown()
    run.begin("code", 0.0)
    assert run.begin("base", 1.0, from_cache=True) == ("stage 2 of 4: base, about 3 min left")
    assert run.begin("distill@skd", 2.0) == "stage 3 of 4: distill@skd, about 3 min left"
    assert run.begin("evaluate", 242.0) == "stage 4 of 4: evaluate, about 2 min left"


PARAMS = {
    "experiment": {
        "tasks": ["one", "two"],
        "seeds": [1, 2, 3],
        "methods": ["skd", "new"],
        "sweeps": ["k"],
        "fairness": ["one"],
    },
    "sweeps": {
        "k": {"values": [1, 2], "tasks": ["one"], "seeds": [1, 2, 3, 4]},
        "other": {"values": [1], "tasks": ["one"], "seeds": [1]},
    },
    "fairness": {"seeds": [1, 2], "learning_rates": [1, 2], "knobs": {"skd": {"values": [1, 2]}}},
    "scaling": {"tasks": ["one"], "seeds": [1, 2], "methods": ["skd", "new", "old"]},
}


def locked(root: Path, stages: dict) -> None:
    """A lock whose stages ran with these parameters."""
    each = {name: {"params": {"params.yaml": values}} for name, values in stages.items()}
    (root / "dvc.lock").write_text(json.dumps({"stages": each | {"code": {"cmd": "code"}}}))


def test_more_runs_take_longer(tmp_path) -> None:
    """By what the parameters were when a stage ran, which DVC has written down."""
    (tmp_path / "params.yaml").write_text(json.dumps(PARAMS))
    then = {"experiment.tasks": ["one"], "experiment.seeds": [1, 2], "experiment.methods": ["skd"]}
    idle = {"experiment.sweeps": [], "sweeps": {}}
    locked(tmp_path, {"distill@skd": then, "evaluate": then, "sweep": idle})
    seconds = SECONDS | {"sweep": 3.0, "prepare@one": 8.0, "prepare@two": 10.0}
    names = [*seconds, "distill@new", "fairness", "scaling@small", "prepare@three", "other@new"]
    assert expected_seconds(tmp_path, names, seconds) == {
        "base": 60.0,
        "distill@skd": 360.0,  # 6 runs, where 2 took 120 s
        "evaluate": 60.0 * 18 / 4,  # each method's students and those they began as
        "sweep": 3.0 + 8 * 60.0,  # had nothing to do
        "prepare@one": 8.0,
        "prepare@two": 10.0,
        "distill@new": 360.0,  # never ran
        "fairness": (4 + 6) * 60.0,
        "scaling@small": 8 * 60.0,
        "prepare@three": 9.0,
    }


@pytest.mark.parametrize(
    "text", ["", "stages: [", "stages: {base: {params: 3}}", '{"stages": {"base": 1}}']
)
def test_a_damaged_lock_says_nothing_of_runs(tmp_path, text) -> None:
    (tmp_path / "params.yaml").write_text(json.dumps(PARAMS))
    (tmp_path / "dvc.lock").write_text(text)
    assert expected_seconds(tmp_path, NAMES, SECONDS) == SECONDS


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (89, "89 s"), (600, "10 min"), (3600, "1 h 00 min"), (12_000, "3 h 20 min")],
)
def test_durations_are_said_as_people_do(seconds, text) -> None:
    assert about(seconds) == text


def test_a_run_says_its_stages_as_they_begin_and_gives_dvcs_status(project, capfd) -> None:
    root = project(chain())
    record(root, "seed", 5.0)
    assert repro([], root) == 0
    said = capfd.readouterr().out
    assert "4 stages to run, about 5 s" in said
    assert "stage 1 of 4: seed, about 5 s left" in said
    assert "stage 4 of 4: join" in said
    assert said.index("stage 4 of 4") < said.index("Running stage 'join'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.repro.slowness", lambda _: pytest.fail("there is nothing to time"))
        assert repro([], root) == 0
    assert "nothing to do" in capfd.readouterr().out
    assert repro(["--force", "seed"], root) == 0
    assert "stage 1 of 1: seed" in capfd.readouterr().out


def test_what_a_killed_dvc_left_is_mended_first(project, capfd) -> None:
    root = project(chain())
    assert repro([], root) == 0
    lock = root / ".dvc" / "tmp" / "rwlock"
    lock.write_text('{"write": {"')
    assert repro(["--force"], root) == 0
    assert f"removed {lock}" in capfd.readouterr().err


def test_a_stage_that_fails_fails_the_run(project, capfd) -> None:
    root = project(chain() | {"bad": {"cmd": "exit 3"}})
    assert repro([], root) != 0
    assert "bad" in capfd.readouterr().err


def test_a_stage_that_will_make_what_stands_already_makes_nothing_else_due(project) -> None:
    root = project(chain())
    assert repro([], root) == 0
    (root / "params.yaml").write_text("colours: [red, blue]\ntext: other\n")
    assert {stage.name for stage in plan(root) if not stage.fresh} == {
        "seed", "paint@red", "paint@blue", "join",
    }  # fmt: skip
    assert {stage.name for stage in plan(root, settled=["seed"]) if not stage.fresh} == {"seed"}
