"""A real Ray cluster on loopback: two workers and the driver, each with folders of its own."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from pipelines.runs import cluster
from pipelines.runs.engines import run_jobs
from pipelines.runs.jobs import JOB, Job
from pipelines.runs.progress import FINISHED, LOG
from pipelines.runs.training import MODEL, RunSpec
from skd.errors import UserError
from skd.models.settings import Budget
from skd.seals import SEAL
from tests.pipelines.test_jobs import models, some_jobs  # noqa: F401 - a fixture
from tests.ray_cluster import WORKERS, workers  # noqa: F401 - a fixture
from tests.tiny import machine_in

# Its scratch is its own: the path says the same to a worker, in the worker's folder
DRIVER = machine_in(Path(), engine="ray")


@pytest.fixture
def jobs(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Job]:  # noqa: F811
    """A test, and the same run with some seeds; the driver's folder."""
    (tmp_path / "models").symlink_to(models / "models")
    monkeypatch.chdir(tmp_path)
    run, test, _ = some_jobs()
    return [test, *(dataclasses.replace(run, seed=seed) for seed in range(20, 26))]


def files(folder: Path) -> dict[str, bytes]:
    """Of a finished job, but for its seconds, and for the seal over them."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    apart = (JOB, FINISHED, LOG, SEAL)
    return {path.name: path.read_bytes() for path in paths if path.name not in apart}


def test_a_cluster_makes_what_this_machine_makes_bit_by_bit(jobs, tmp_path, workers) -> None:  # noqa: F811
    here = run_jobs(jobs, machine_in(tmp_path / "here"))
    there = run_jobs(jobs, DRIVER)
    assert here[0].result == there[0].result
    for ours, theirs in zip(here[1:], there[1:], strict=True):
        assert files(ours.folder) == files(theirs.folder)
        assert ours.result.validation == theirs.result.validation
    for name in WORKERS:
        (scratch,) = (workers / name).rglob("scratch")
        assert list(scratch.glob(f"*/{MODEL}"))
        # Student and teacher, once each, and the files by which workers wait for each other
        assert len([path for path in (scratch / "inputs").iterdir() if path.is_dir()]) == 2
    assert not list((workers / "head").rglob("scratch"))


def test_what_was_made_is_found_without_a_cluster(jobs, workers, monkeypatch) -> None:  # noqa: F811
    first = run_jobs(jobs[:2], DRIVER)
    monkeypatch.setattr(cluster, "_connected", None)
    assert run_jobs(jobs[:2], DRIVER) == first


def test_a_workers_error_is_the_stages_in_one_sentence(jobs, workers) -> None:  # noqa: F811
    run = jobs[-1]
    assert isinstance(run, RunSpec)
    endless = dataclasses.replace(run.task, budget=Budget(4000, 6))
    with pytest.raises(UserError, match=r"^[^\n]*4006[^\n]*$"):
        run_jobs([dataclasses.replace(run, task=endless)], DRIVER)
