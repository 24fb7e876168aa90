"""The flow's states, order and artifacts, on real DVC projects under one Prefect server."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterKey,
)
from prefect.client.schemas.objects import State
from prefect.settings import PREFECT_API_URL
from prefect.states import Failed

from pipelines.orchestration import artifacts, board, flow, graph, publishing, repro, runner, server
from pipelines.runs.progress import Announcement, PlannedRun
from skd.errors import UserError
from skd.results.files import write_result
from tests.pipelines.conftest import Stages, chain, dvc, processes_in, ran, wait_for

# DVC's own use of pygtrie.
pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value will soon:DeprecationWarning")
ROOT = Path(__file__).parents[2]
Project = Callable[[Stages], Path]


def experiment(**parameters: Any) -> State[Any]:
    return flow.reproduce(**parameters, return_state=True)


def published(state: State[Any]) -> dict[str, Any]:
    """The artifacts of a flow run by key."""
    run = state.state_details.flow_run_id
    assert run is not None
    with get_client(sync_client=True) as client:
        wanted = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run]))
        return {str(a.key): a.data for a in client.read_artifacts(artifact_filter=wanted)}


def states(state: State[Any]) -> dict[str, str]:
    """Stage → state, as the stage table shows it."""
    return {row["stage"]: row["state"] for row in json.loads(published(state)["stages"])}


# -------------------------------------------------------------------------- whole runs
@pytest.mark.usefixtures("prefect_server")
def test_stale_stages_run_once_and_then_show_as_cached(project: Project) -> None:
    root = project(chain())
    first = experiment()
    assert first.is_completed()
    assert set(states(first).values()) == {"Completed"}
    assert sorted(ran(root)) == ["blue", "join", "red", "seed"]
    second = experiment()
    assert second.message == "4 cached"
    assert ran(root) == []


@pytest.mark.usefixtures("prefect_server")
def test_a_stage_whose_inputs_come_out_as_they_were_shows_as_cached(project: Project) -> None:
    stages = chain()
    stages["seed"]["cmd"] = "echo seed >> ran && echo ${text} | wc -l > seed.txt"
    root = project(stages)
    dvc("repro", "-q", root=root)
    ran(root)
    (root / "params.yaml").write_text("colours: [red, blue]\ntext: other\n")
    state = experiment()
    assert states(state).pop("seed") == "Completed"
    assert ran(root) == ["seed"]
    assert state.message == "3 cached, 1 completed"


@pytest.mark.usefixtures("prefect_server")
def test_the_code_is_written_down_before_the_rest_is_planned(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A source file without a meaning of its own for any stage starts `code` alone."""
    root = project(coded())
    (root / "source").write_text("# why\none 1\ntwo 1\n")
    assert set(states(experiment()).values()) == {"Completed"}
    started: list[str] = []

    def counted(root: Path, stage: graph.Stage, *others: Any) -> runner.Ended:
        started.append(stage.name)
        return run_through_dvc(root, stage, *others)

    run_through_dvc = repro.repro
    monkeypatch.setattr(repro, "repro", counted)
    (root / "source").write_text("# another why\none 1\ntwo 1\n")
    assert states(experiment()) == {"code": "Completed", "one": "Cached", "two": "Cached"}
    assert started == ["code"]
    (root / "source").write_text("# another why\none 1\ntwo 2\n")
    assert states(experiment(targets=["one"])) == {"code": "Completed", "one": "Cached"}
    assert states(experiment()) == {"code": "Cached", "one": "Cached", "two": "Completed"}
    assert started == ["code", "code", "two"]
    assert set(states(experiment(force=True)).values()) == {"Completed"}
    assert sorted(started[3:]) == ["code", "one", "two"]


@pytest.mark.usefixtures("prefect_server")
def test_when_the_code_cannot_be_written_down_nothing_else_runs(project: Project) -> None:
    stages = coded()
    stages["code"]["cmd"] = "exit 2"
    root = project(stages)
    (root / "source").touch()
    state = experiment()
    assert states(state) == {"code": "Failed", "one": "Skipped", "two": "Skipped"}
    assert "code" in (state.message or "")


def coded() -> Stages:
    """code → one, two: each depends on what `code` writes of the file `source` for it."""
    write = "mkdir -p code && " + " && ".join(
        f"grep {name} source > code/{name}.txt" for name in ("one", "two")
    )
    stages: Stages = {
        name: {"cmd": f"cp code/{name}.txt {name}", "deps": [f"code/{name}.txt"], "outs": [name]}
        for name in ("one", "two")
    }
    code = {"cmd": write, "deps": ["source"], "outs": [{"code": {"cache": False}}]}
    return {"code": code, **stages}


@pytest.mark.usefixtures("prefect_server")
def test_targets_and_force_reach_dvc(project: Project) -> None:
    root = project(chain())
    dvc("repro", "-q", "seed", root=root)
    ran(root)
    state = experiment(targets=["paint@red"], force=True)
    assert states(state) == {"seed": "Completed", "paint@red": "Completed"}
    assert ran(root) == ["seed", "red"]


@pytest.mark.usefixtures("prefect_server")
def test_a_failure_skips_what_needs_it_and_nothing_else(project: Project) -> None:
    stages = chain()
    stages["paint"]["cmd"] = "test ${item.colour} = blue && cp seed.txt blue.txt"
    root = project(stages)
    state = experiment()
    assert state.is_failed()
    assert "paint@red" in (state.message or "")
    assert states(state) == {
        "seed": "Completed",
        "paint@red": "Failed",
        "paint@blue": "Completed",
        "join": "Skipped",
    }
    assert (root / "blue.txt").exists()
    assert {s.name for s in graph.plan(root) if s.fresh} == {"seed", "paint@blue"}


@pytest.mark.usefixtures("prefect_server")
def test_independent_stages_overlap_and_share_the_cores(project: Project) -> None:
    # Each waits until the other has started: alone, it fails.
    meet = "touch {0}.here; for i in $(seq 600); do test -e {1}.here && break; sleep 0.1; done; "
    meet += "test -e {1}.here && echo $SKD_WORKERS > {0}.txt"
    root = project(
        {
            name: {"cmd": meet.format(name, other), "outs": [f"{name}.txt"]}
            for name, other in (("a", "b"), ("b", "a"))
        }
    )
    assert experiment(max_workers=2).is_completed()
    share = str(max(1, (os.cpu_count() or 1) // 2))
    assert (root / "a.txt").read_text().strip() == share


@pytest.mark.usefixtures("prefect_server")
def test_one_worker_runs_one_stage_at_a_time(project: Project) -> None:
    alone = "mkdir busy && sleep 0.3 && rmdir busy && touch {0}"
    project({name: {"cmd": alone.format(name), "outs": [name]} for name in ("a", "b")})
    assert experiment(max_workers=1).is_completed()


@pytest.mark.usefixtures("prefect_server")
def test_retries_come_from_meta_and_refused_input_is_not_retried(project: Project) -> None:
    once = "echo {0} >> ran; test -e {0}.tried || {{ touch {0}.tried; exit {1}; }}; touch {0}"
    root = project(
        {
            name: {"cmd": once.format(name, status), "outs": [name], "meta": {"retries": 1}}
            for name, status in (("flaky", 1), ("refused", 2))
        }
    )
    state = experiment()
    assert states(state) == {"flaky": "Completed", "refused": "Failed"}
    assert sorted(ran(root)) == ["flaky", "flaky", "refused"]


@pytest.mark.usefixtures("prefect_server")
def test_a_time_limit_from_meta_fails_the_stage_and_leaves_dvc_usable(project: Project) -> None:
    slow = {"cmd": "sleep 600; touch slow", "outs": ["slow"], "meta": {"timeout_seconds": 2}}
    root = project({"slow": slow})
    state = experiment()
    assert states(state) == {"slow": "Failed"}
    assert processes_in(root) == []
    assert not graph.plan(root)[0].fresh


@pytest.mark.usefixtures("prefect_server")
def test_the_flow_pulls_what_is_missing_makes_what_is_lost_and_pushes(
    project: Project, tmp_path: Path
) -> None:
    root = project(chain())
    store = tmp_path / "store"
    dvc("remote", "add", "-q", "-d", "storage", str(store), root=root)
    assert experiment(push=True).is_completed()
    ran(root)
    shutil.rmtree(root / ".dvc" / "cache")
    for made in root.glob("*.txt"):
        made.unlink()
    objects = [path for path in store.rglob("*") if path.is_file()]
    (joined,) = [path for path in objects if path.read_text() == "hello\nhello\n"]
    joined.unlink()
    state = experiment(pull=True, push=True)
    assert state.is_completed()
    assert states(state) == {
        "seed": "Cached",
        "paint@red": "Cached",
        "paint@blue": "Cached",
        "join": "Completed",
    }
    assert ran(root) == ["join"]
    assert joined.read_text() == "hello\nhello\n"


@pytest.mark.usefixtures("prefect_server")
def test_without_a_remote_a_pull_fails_the_run_with_the_remedy(project: Project) -> None:
    root = project(chain())
    state = experiment(pull=True)
    assert state.is_failed()
    assert "dvc remote add -d" in str(state.message)
    assert ran(root) == []


@pytest.mark.usefixtures("prefect_server")
def test_the_report_becomes_an_artifact_unless_it_failed(project: Project) -> None:
    command = "mkdir -p reports && test -e ready && echo '# Findings' > reports/report.md"
    root = project({"report": {"cmd": command, "outs": ["reports/report.md"]}})
    assert set(published(experiment())) == {"stages"}
    (root / "ready").touch()
    assert published(experiment())["report"] == "# Findings\n"


@pytest.mark.usefixtures("prefect_server")
def test_a_stage_that_trains_has_a_progress_artifact(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stage waits until the server has what it announced and its run has logged."""
    monkeypatch.setattr(publishing, "EVERY", 0.05)
    runs = [PlannedRun("run", "run", 10), PlannedRun("other", "other", 10)]
    begin = "mkdir -p run .progress; cp row run/log.jsonl; cp said .progress/sft.json"
    end = "until test -e go; do sleep 0.05; done; rm .progress/sft.json; touch done"
    root = project({"sft": {"cmd": f"{begin}; {end}", "outs": ["done"]}})
    (root / "row").write_text('{"step": 5, "loss": 0.5}\n')
    write_result(root / "said", Announcement("sft", os.getpid(), runs))
    seen: list[tuple[float, str]] = []
    shown = publishing.create_progress_artifact

    def create(progress: float, key: str, description: str) -> Any:
        made = shown(progress, key=key, description=description)
        seen.append((progress, description))
        (root / "go").touch()
        return made

    monkeypatch.setattr(publishing, "create_progress_artifact", create)
    assert experiment().is_completed()
    assert seen == [(25.0, "sft: 0 of 2 runs, 5 of 20 steps, loss 0.500")]
    with get_client(sync_client=True) as client:
        wanted = ArtifactFilter(key=ArtifactFilterKey(any_=["training-sft"]))
        (artifact,) = client.read_artifacts(artifact_filter=wanted)
    assert artifact.data == 100.0
    assert artifact.description == "sft: 2 of 2 runs, 20 of 20 steps"


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize(
    ("parameters", "message"),
    [({"targets": ["nowhere"]}, "nowhere"), ({"max_workers": 0}, "at least 1")],
)
def test_wrong_parameters_fail_the_run_with_their_name(
    project: Project, parameters: dict[str, Any], message: str
) -> None:
    project(chain())
    state = experiment(**parameters)
    assert state.is_failed()
    assert message in (state.message or "")


@pytest.mark.usefixtures("prefect_server")
def test_an_unreadable_lock_does_not_stop_the_flow(project: Project) -> None:
    root = project(chain())
    lock = root / ".dvc" / "tmp" / "rwlock"
    lock.parent.mkdir(exist_ok=True)
    lock.touch()
    assert experiment(targets=["seed"]).is_completed()


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_cancelled_flow_leaves_no_process_and_a_usable_dvc(
    project: Project, signum: signal.Signals
) -> None:
    stages = chain()
    stages["paint"]["cmd"] = "touch started.${item.colour}; sleep 600; touch ${item.colour}.txt"
    root = project(stages)
    env = os.environ | {"PREFECT_API_URL": str(PREFECT_API_URL.value()), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pipelines.orchestration.flow", "run", "--max-workers", "2"]
    process = subprocess.Popen(
        command,
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
        # tests that run in the background inherit a SIGINT that is ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
    )
    wait_for(lambda: len(list(root.glob("started.*"))) == 2)
    process.send_signal(signum)
    assert process.wait(600) != 0
    assert processes_in(root) == []
    assert {s.name for s in graph.plan(root) if s.fresh} == {"seed"}


# ------------------------------------------------------------------------ pure pieces
STAGE = graph.Stage("slow", fresh=False, upstream=(), timeout_seconds=5)


@pytest.mark.parametrize(
    ("ended", "name"),
    [
        (runner.Ended(0, ("Running stage 'slow':",)), "Completed"),
        (runner.Ended(0, ("Stage 'slow' didn't change, skipping",)), "Cached"),
        (runner.Ended(255, ("boom",)), "Failed"),
        (runner.Ended(runner.TIMED_OUT, ("boom",)), "Failed"),
        (runner.Ended(runner.CANCELLED, ()), "Cancelled"),
    ],
)
def test_outcome_of_a_stage(ended: runner.Ended, name: str) -> None:
    state = board.outcome(STAGE, ended)
    assert state.name == name
    if state.is_failed():
        assert "boom" in (state.message or "")


def test_a_fresh_stage_starts_no_process_and_a_skipped_one_names_the_reason() -> None:
    line = runner.Lifeline()
    fresh = graph.Stage("fresh", fresh=True, upstream=())
    assert board.run_stage.fn(ROOT, fresh, [], line, {}, False).name == "Cached"
    skipped = board.run_stage.fn(ROOT, STAGE, ["paint@red"], line, {}, False)
    assert (skipped.name, skipped.is_completed()) == ("Skipped", False)
    assert "paint@red" in skipped.message
    line.close()
    assert board.run_stage.fn(ROOT, STAGE, [], line, {}, False).name == "Cancelled"


def test_only_status_2_is_a_refusal() -> None:
    said = "ERROR: failed to reproduce 'a': failed to run: false, exited with {}"
    assert repro.refused(said.format(2))
    assert not any(repro.refused(said.format(status)) for status in (1, 20, 255, -2))
    assert not board.may_retry(None, None, Failed(message=said.format(2)))


def test_the_stage_commands_use_this_python() -> None:
    env = repro.environment(max_workers=10_000)
    assert env["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    assert env["SKD_WORKERS"] == "1"


def test_the_report_is_self_contained(tmp_path: Path) -> None:
    (tmp_path / "small.png").write_bytes(b"png")
    (tmp_path / "large.png").write_bytes(b"x" * (artifacts.FIGURE_LIMIT + 1))
    report = tmp_path / "report.md"
    report.write_text(
        "![a](small.png) ![b](large.png) ![c](gone.png) [d](cards/d.md) [e](https://e.org) [f](#f)"
    )
    inlined = f"data:image/png;base64,{base64.b64encode(b'png').decode()}"
    assert artifacts.self_contained(report) == (
        f"![a]({inlined}) *Figure `large.png`: b* *Figure `gone.png`: c* "
        "d, `cards/d.md` [e](https://e.org) [f](#f)"
    )


def test_all_figures_together_stay_under_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts, "REPORT_LIMIT", 100)
    (tmp_path / "a.png").write_bytes(b"x" * 40)
    report = tmp_path / "report.md"
    report.write_text("![1](a.png)![2](a.png)")
    assert artifacts.self_contained(report).count("data:") == 1


def test_a_wrong_target_ends_the_command_before_a_server_starts(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    root = project(chain())
    assert flow.main(["run", "--target", "nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err
    assert not (root / server.LOG).exists()


def test_a_taken_port_is_refused_with_the_remedy(project: Project) -> None:
    project(chain())
    with socket.socket() as taken:
        taken.bind((server.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match="--port"), server.running(port):
            pass


def test_the_deployment_file_names_the_flow_and_starts_paused() -> None:
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    assert [deployment["name"] for deployment in deployments] == ["worker", "kubernetes"]
    for deployment in deployments:
        file, name = deployment["entrypoint"].split(":")
        assert (ROOT / file).is_file()
        assert hasattr(flow, name)
        assert set(deployment["parameters"]) == set(flow.reproduce.parameters.properties)
    (schedule,) = deployments[0]["schedules"]
    assert not schedule["active"]
    assert schedule["cron"] == flow.NIGHTLY
