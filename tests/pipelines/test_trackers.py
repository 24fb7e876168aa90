"""A tracker's record of a run holds the rows of its log, each once, and trains nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from pipelines import trackers
from pipelines.runs.progress import FINISHED, LOG, PlannedRun, announced
from pipelines.runs.tracking import tracked
from pipelines.settings.runtime import Runtime
from skd.errors import UserError

pytestmark = pytest.mark.filterwarnings("default")  # the trackers' own
ROWS = [
    {"step": step, "loss": 2.0 / step, "kl": None if step < 3 else 0.5, "learning_rate": 1e-3}
    for step in range(1, 6)
]


def write(folder: Path, rows: list[dict]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / LOG).write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[PlannedRun]:
    """Two runs to come and one that is finished, in a project of their own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_STAGE", "distill@skd")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    made = [PlannedRun(f"run-{name}", f".scratch/{name}", 5) for name in ("a", "b", "old")]
    write(tmp_path / ".scratch/old", ROWS)
    (tmp_path / ".scratch/old" / FINISHED).touch()
    return made


def recorded(tracker: str, runs: list[PlannedRun]) -> None:
    """Both runs are trained while the tracker looks: the second is killed and goes on."""
    a, b = (Path(run.folder) for run in runs[:2])
    looks = iter(
        [
            lambda: write(a, ROWS[:2]),
            lambda: (write(a, ROWS), (a / FINISHED).touch(), write(b, ROWS[:4])),
            lambda: write(b, ROWS[:1]),  # cut to its state
            lambda: write(b, ROWS),
        ]
    )

    def wait() -> bool:
        look = next(looks, None)
        if look is not None:
            look()
        return look is None

    with announced(runs) as announcement:
        trackers.follow_all(tracker, announcement, wait)


WANTED = {
    "loss": [(row["step"], row["loss"]) for row in ROWS],
    "kl": [(row["step"], row["kl"]) for row in ROWS if row["kl"] is not None],
    "learning_rate": [(row["step"], row["learning_rate"]) for row in ROWS],
}


def close(found: dict[str, list[tuple[int, float]]]) -> bool:
    """Equal in steps and, as files hold them, in values."""
    return {
        name: [(s, pytest.approx(v)) for s, v in rows] for name, rows in WANTED.items()
    } == found


def test_mlflows_file_store_holds_the_rows(runs, monkeypatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    for _ in range(2):  # a run that goes on has one record
        recorded("mlflow", runs)
    client = mlflow.MlflowClient(tracking_uri=(Path("trackers/mlflow").resolve()).as_uri())
    (experiment,) = [e for e in client.search_experiments() if e.name == trackers.PROJECT]
    found = client.search_runs([experiment.experiment_id])
    assert {run.info.run_name for run in found} == {"run-a", "run-b"}
    for run in found:
        assert run.info.status == "FINISHED"
        assert run.data.tags["stage"] == "distill@skd"
        history = {
            name: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)]
            for name in run.data.metrics
        }
        assert close(history)


def test_tensorboards_event_files_hold_the_rows(runs) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for _ in range(2):
        recorded("tensorboard", runs)
    folders = sorted(Path("trackers/tensorboard/distill@skd").iterdir())
    assert [folder.name for folder in folders] == ["a", "b"]
    for folder in folders:
        events = EventAccumulator(str(folder)).Reload()
        assert close(
            {
                name: [(e.step, e.value) for e in events.Scalars(name)]
                for name in events.Tags()["scalars"]
            }
        )


def test_dvclives_files_hold_the_rows(runs) -> None:
    pytest.importorskip("dvclive", reason="dvclive is not installed")
    recorded("dvclive", runs)
    for name in "ab":
        lines = Path(f"trackers/dvclive/distill@skd/{name}/plots/metrics/loss.tsv").read_text()
        rows = [line.split("\t") for line in lines.splitlines()]
        place = {column: number for number, column in enumerate(rows[0])}
        assert [(int(row[place["step"]]), float(row[place["loss"]])) for row in rows[1:]] == WANTED[
            "loss"
        ]


def test_wandb_records_offline_unless_it_is_told_otherwise(runs, monkeypatch) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    recorded("wandb", runs)
    assert len(list(Path("trackers/wandb").glob("offline-run-*/run-*.wandb"))) == 2


def test_a_tracker_that_is_not_installed_is_refused_before_anything_trains(
    monkeypatch, tmp_path
) -> None:
    monkeypatch.setattr("pipelines.runs.tracking.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"\[mlflow\]"), tracked("mlflow", tmp_path / "none"):
        pass


def test_a_tracker_that_fails_is_named_and_ends_no_training(
    runs, monkeypatch, capfd, tmp_path
) -> None:
    """Its process cannot start here, since the project is elsewhere."""
    monkeypatch.setattr("pipelines.runs.tracking.find_spec", lambda name: "there")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    trained = []
    with announced(runs) as announcement, tracked("mlflow", announcement):
        trained.append(True)
    assert trained
    assert "mlflow ended with status 1" in capfd.readouterr().err


def test_the_trackers_are_those_that_may_be_asked_for() -> None:
    asked, none = get_args(get_type_hints(Runtime)["tracker"])
    assert (set(get_args(asked)), none) == (set(trackers.TRACKERS), type(None))
