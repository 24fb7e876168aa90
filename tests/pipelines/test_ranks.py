"""Several processes that do one job: what they leave is one's, and none outlives another's end."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import time
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch

from pipelines.runs import machine as machines
from pipelines.runs.jobs import finish
from pipelines.runs.machine import VISIBLE, Machine, device_places, jobs_at_once
from pipelines.runs.progress import FINISHED, LOG
from pipelines.runs.ranks import together
from pipelines.runs.training import MODEL
from pipelines.settings.runtime import Runtime
from skd.errors import UserError
from skd.files import write_text
from skd.models.loading import load_model
from skd.seals import SEAL
from skd.training.group import Group
from tests.pipelines.test_training import machine, spec  # noqa: F401 (fixtures)
from tests.tiny import machine_in

WATCHDOG = 120  # seconds: for what would otherwise hang


# ---------------------------------------------------------------------- whole runs
@pytest.mark.parametrize(("method", "shard"), [("skd", None), ("seq_kd", None), ("skd", "fsdp")])
def test_a_run_leaves_the_same_whoever_trains_it(method, shard, spec, machine, tmp_path) -> None:  # noqa: F811
    """Seconds and memory apart, and what a block's size decides, which follows the acceptance of
    the rows beside.
    """
    made = spec(method)
    own = dataclasses.replace(made, distill=dataclasses.replace(made.distill, block_size=2))
    one = finish(own, machine)
    several = machine_in(tmp_path / "several", processes=2, shard=shard)
    many = finish(own, several)
    for name in {field.name for field in dataclasses.fields(one.result)} - {
        "cost",
        "preparation",
        "teacher_passes",
        "validation",
    }:
        assert getattr(one.result, name) == getattr(many.result, name), name
    assert many.result.validation.metric == one.result.validation.metric
    assert many.result.validation.loss == pytest.approx(one.result.validation.loss, rel=1e-5)
    assert {path.name for path in many.folder.iterdir()} == {FINISHED, LOG, MODEL, SEAL}
    losses = [
        [json.loads(line)["loss"] for line in (run.folder / LOG).read_text().splitlines()]
        for run in (one, many)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    files = [sorted(path.name for path in (run.folder / MODEL).iterdir()) for run in (one, many)]
    assert files[0] == files[1]
    weights = [load_model(run.folder / MODEL).state_dict() for run in (one, many)]
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[0].items():  # in fp32, by Adam: as between micro-batches
        assert torch.allclose(value, weights[1][name], atol=2e-3), name


# -------------------------------------------------------------------------- faults
def dying(folder: Path, how: str, machine: Machine, group: Group) -> float:  # noqa: F811
    """The second process fails while the first waits for it."""
    write_text(folder / str(os.getpid()), "")
    if group.first:
        (total,) = group.totals([1.0])
        return total
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "gone":
        os._exit(7)
    raise UserError("the second process has no data")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("killed", r"process 1 of those that train one run was ended \(SIGKILL\)"),
        ("gone", r"was ended \(status 7\)"),
        ("failing", "the second process has no data"),
    ],
)
def test_a_process_that_dies_ends_the_others_with_what_it_died_of(how, message, tmp_path) -> None:
    began = time.monotonic()
    with pytest.raises(UserError, match=message):
        together(partial(dying, tmp_path / "pids", how), machine_in(tmp_path, processes=2))
    assert time.monotonic() - began < WATCHDOG
    pids = [int(path.name) for path in (tmp_path / "pids").iterdir()]
    assert len(pids) == 2
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_an_error_that_cannot_be_sent_is_told_in_words(tmp_path) -> None:
    class LocalError(Exception):
        pass

    def work(machine: Machine, group: Group) -> None:  # noqa: F811
        raise LocalError("of a kind that only this process knows")

    with pytest.raises(RuntimeError, match="LocalError: of a kind that only this process knows"):
        together(work, machine_in(tmp_path, processes=2))


def settings(machine: Machine, group: Group) -> list:  # noqa: F811
    return [torch.get_num_threads(), os.environ.get(VISIBLE), group.size]


def test_processes_share_the_threads(tmp_path) -> None:
    torch.set_num_threads(4)
    try:
        assert together(settings, machine_in(tmp_path, processes=2))[::2] == [2, 2]
    finally:
        torch.set_num_threads(1)


# -------------------------------------------------------------------------- places
@pytest.mark.parametrize(
    ("teacher", "shown"),
    [(None, ["4", "5"]), ("offload", ["4", "5"]), ("cuda:1", ["4,6", "5,7"])],
)
def test_each_process_sees_an_accelerator_and_its_teachers(teacher, shown, monkeypatch) -> None:
    monkeypatch.setenv(VISIBLE, "4,5,6,7")
    runtime = Runtime(device="cuda", processes=2, teacher_device=teacher)
    assert Machine.of(runtime, decoding_batch=1).devices_of_processes() == shown


@pytest.mark.parametrize(
    ("teacher", "message"), [(None, "runtime.processes: 3"), ("cuda:1", "runtime.processes: 3")]
)
def test_too_few_accelerators_are_an_error(teacher, message, monkeypatch) -> None:
    monkeypatch.setattr(machines, "visible_devices", lambda: ["0", "1"])
    runtime = Runtime(device="cuda", processes=3, teacher_device=teacher)
    with pytest.raises(UserError, match=message):
        Machine.of(runtime, decoding_batch=1).devices_of_processes()
    with pytest.raises(UserError, match="2 are seen"):
        device_places(["0", "1"], 1, 3)


def test_a_teacher_without_a_device_is_an_error(monkeypatch) -> None:
    monkeypatch.setattr(machines, "visible_devices", lambda: ["0", "1"])
    runtime = Runtime(device="cuda", processes=2, teacher_device="cuda:1")
    with pytest.raises(UserError, match="teacher_device: offload"):
        Machine.of(runtime, decoding_batch=1).devices_of_processes()


def test_runs_of_several_processes_take_as_many_places(monkeypatch) -> None:
    monkeypatch.delenv("SKD_WORKERS", raising=False)
    assert device_places(["0", "1", "2", "3", "4"], 2, 2) == ["0,1", "2,3", "0,1", "2,3"]
    runtime = Runtime(processes=2)
    assert jobs_at_once("cuda", runtime, cores=9, devices=5, processes=2) == 2
    assert jobs_at_once("cpu", runtime, cores=8, extra=1, processes=2) == 4
    assert jobs_at_once("cpu", runtime, cores=2, extra=1, processes=4) == 1


# ------------------------------------------------------------------------ settings
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"shard": "fsdp"}, "set `processes` above 1"),
        ({"processes": 2, "engine": "ray"}, "engine: local"),
        ({"processes": 2, "device": "mps"}, "processes: 1"),
        ({"processes": 2, "teacher_device": "cuda:3"}, "teacher_device: cuda:1"),
    ],
)
def test_what_does_not_go_together_is_refused(values, message) -> None:
    with pytest.raises(ValueError, match=message):
        Runtime(**values)
