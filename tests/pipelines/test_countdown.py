"""What `make repro` says beforehand and while it runs: stages, their number, the time left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.calibration import fixed_work
from pipelines.orchestration.countdown import (
    Countdown,
    about,
    growth,
    like_their_kin,
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
    assert recorded_seconds(tmp_path, NAMES) == {"base": 60.0, "distill@skd": 120.0}


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
    assert recorded_seconds(tmp_path, NAMES) == {}
    assert slowness(tmp_path) is None


def test_the_opening_scales_the_last_run() -> None:
    assert Countdown(NAMES, SECONDS, 1.5).opening() == (
        "4 stages to run, about 6 min: the last run took 4 min on a machine 1.50 times as fast"
    )
    assert Countdown(NAMES, SECONDS, None).opening() == (
        "4 stages to run, about 4 min: the last run took 4 min"
    )
    assert "no earlier run" in Countdown(["code"], {}, 1.0).opening()
    assert "nothing to do" in Countdown([], SECONDS, 1.0).opening()


def test_a_new_cell_of_a_matrix_is_taken_to_be_like_its_kin() -> None:
    seconds = SECONDS | {"distill@sft": 60.0}
    assert like_their_kin([*NAMES, "distill@new", "other@new"], seconds) == {"distill@new": 90.0}
    countdown = Countdown(["distill@sft", "distill@skd", "distill@new"], seconds, 2.0)
    assert countdown.opening() == (
        "3 stages to run, about 9 min: the last run took 3 min on a machine 2.00 times as fast, "
        "and new ones (1) are taken to be like those"
    )
    assert countdown.begin("distill@new", 0.0) == "stage 1 of 3: distill@new, about 9 min left"


def test_what_is_left_follows_the_pace_of_the_stages_that_are_over() -> None:
    countdown = Countdown(NAMES, SECONDS, 1.0)
    assert countdown.begin("code", 0.0) == "stage 1 of 4: code, about 4 min left"
    assert countdown.begin("base", 1.0) == "stage 2 of 4: base, about 4 min left"
    # `base` took two minutes instead of one, so the rest will take twice as long, too
    assert countdown.begin("distill@skd", 120.0) == "stage 3 of 4: distill@skd, about 6 min left"
    assert countdown.begin("evaluate", 360.0) == "stage 4 of 4: evaluate, about 2 min left"


def test_what_came_from_the_cache_says_nothing_of_the_pace() -> None:
    countdown = Countdown(NAMES, SECONDS, 1.0)
    countdown.begin("code", 0.0)
    assert countdown.begin("base", 1.0, from_cache=True) == ("stage 2 of 4: base, about 3 min left")
    assert countdown.begin("distill@skd", 2.0) == "stage 3 of 4: distill@skd, about 3 min left"
    assert countdown.begin("evaluate", 242.0) == "stage 4 of 4: evaluate, about 2 min left"


def test_more_runs_take_longer(tmp_path) -> None:
    """By what the parameters were when a stage ran, which DVC has written down."""
    experiment = {"tasks": ["one", "two"], "seeds": [1, 2, 3]}
    locked = {"experiment.tasks": ["one"], "experiment.seeds": [1, 2]}
    stages = {
        "distill@skd": {"params": {"params.yaml": {**locked, "budget": {}}}},
        "base": {"params": {"params.yaml": {"experiment.tasks": ["one"]}}},
        "code": {"cmd": "code"},
    }
    (tmp_path / "params.yaml").write_text(json.dumps({"experiment": experiment}))
    (tmp_path / "dvc.lock").write_text(json.dumps({"stages": stages}))
    found = growth(tmp_path, NAMES)
    assert found == {"code": 1.0, "base": 2.0, "distill@skd": 3.0}
    assert Countdown(NAMES, SECONDS, None, found).opening() == (
        "4 stages to run, about 9 min: the last run took 4 min, with now 2.2 times as many runs"
    )
    assert Countdown(["distill@new"], SECONDS, None, found).guessed == {"distill@new": 360.0}
    for text in ("", "stages: [", "stages: {base: {params: 3}}", '{"stages": {"base": 1}}'):
        (tmp_path / "dvc.lock").write_text(text)
        assert growth(tmp_path, NAMES) == {}


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
