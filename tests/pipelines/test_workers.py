"""Jobs side by side: order, places, failures, and children that end with their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import psutil
import pytest
import torch

from pipelines.runs import machine as machines
from pipelines.runs.engines import run_jobs
from pipelines.runs.machine import SMALL, VISIBLE, Machine, device_places, jobs_at_once, pick_device
from pipelines.settings.runtime import Runtime
from skd.errors import UserError
from skd.files import write_text
from skd.models.folders import ModelReference, write_reference
from tests.tiny import machine_in

CPU = torch.device("cpu")
WATCHDOG = 120.0  # seconds after which a test that hangs fails


@dataclass(frozen=True)
class Number:
    """Gives its number; one below zero fails."""

    number: int
    kind: ClassVar = int

    @property
    def key(self) -> str:
        return f"number-{self.number}"

    def make(self, _machine: Machine, _folder: Path, _line: int) -> int:
        if self.number < 0:
            raise UserError(f"seed {self.number}: the loss is nan")
        return self.number


@dataclass(frozen=True)
class Meeting:
    """Waits until all are there, which come only if they run meanwhile; tells where it was."""

    name: str
    others: tuple[str, ...]
    kind: ClassVar = tuple[int, str | None]

    @property
    def key(self) -> str:
        return self.name

    def make(self, machine: Machine, _folder: Path, _line: int) -> tuple[int, str | None]:
        write_text(machine.scratch / f"{self.name}-is-here", "")
        deadline = time.monotonic() + WATCHDOG
        while not all((machine.scratch / f"{other}-is-here").exists() for other in self.others):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return os.getpid(), os.environ.get(VISIBLE)


@dataclass(frozen=True)
class Product:
    """Computes on as many threads as it is given, and tells how many these were."""

    size: int
    kind: ClassVar = int

    @property
    def key(self) -> str:
        return f"product-{self.size}"

    def make(self, _machine: Machine, _folder: Path, _line: int) -> int:
        torch.ones(self.size, self.size) @ torch.ones(self.size, self.size)
        return torch.get_num_threads()


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_results_come_in_the_order_of_the_jobs(workers, tmp_path) -> None:
    done = run_jobs([Number(i) for i in range(5)], machine_in(tmp_path, workers=workers))
    assert [one.result for one in done] == [0, 1, 2, 3, 4]


def test_no_jobs_are_done_at_once(tmp_path) -> None:
    assert run_jobs([], machine_in(tmp_path, workers=2)) == []


def test_jobs_run_side_by_side_in_processes_of_their_own(tmp_path) -> None:
    jobs = [Meeting("one", ("two",)), Meeting("two", ("one",))]
    pids = {done.result[0] for done in run_jobs(jobs, machine_in(tmp_path, workers=2))}
    assert len({*pids, os.getpid()}) == 3


def test_jobs_side_by_side_see_a_device_each(tmp_path, monkeypatch) -> None:
    """Devices that are not there: what is shown to a process is a variable until it looks."""
    monkeypatch.setenv(VISIBLE, "4,7")
    jobs = [Meeting("one", ("two",)), Meeting("two", ("one",))]
    done = run_jobs(jobs, machine_in(tmp_path, "cuda"))
    assert {one.result[1] for one in done} == {"4", "7"}
    assert os.environ[VISIBLE] == "4,7"


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failing_job_ends_the_stage_with_its_message(workers, tmp_path) -> None:
    with pytest.raises(UserError, match="seed -21"):
        run_jobs([Number(1), Number(-21)], machine_in(tmp_path, workers=workers))


# ------------------------------------------------------------------------ places
def test_the_share_of_cores_is_set_by_whoever_runs_several_stages(monkeypatch) -> None:
    monkeypatch.delenv("SKD_WORKERS", raising=False)
    machine = Machine.of(Runtime(device="cpu", workers=5), decoding_batch=1)
    assert (machine.device, len(machine.places(extra=1))) == (CPU, 5)
    monkeypatch.setenv("SKD_WORKERS", "1")
    assert machine.places() == [None]


def test_each_core_has_a_job_and_each_accelerator_as_many_as_it_is_asked_to(monkeypatch) -> None:
    monkeypatch.delenv("SKD_WORKERS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: {0, 3, 4})
    machine = Machine.of(Runtime(device="cpu"), decoding_batch=1)
    assert (len(machine.places()), len(machine.places(extra=1))) == (3, 4)
    monkeypatch.setattr(machines, "visible_devices", lambda: ["0", "1"])
    accelerated = Machine.of(Runtime(device="cuda", workers=5), decoding_batch=1)
    assert accelerated.places(extra=1) == ["0", "1"]
    shared = Machine.of(Runtime(device="cuda", per_device=2), decoding_batch=1)
    assert shared.places(extra=1) == ["0", "1", "0", "1"]


@pytest.mark.parametrize("devices", [["0"], ["0", "1", "2"], [f"GPU-{n}" for n in range(8)]])
@pytest.mark.parametrize("per_device", [1, 2, 5])
def test_no_device_has_two_jobs_before_each_has_one(devices, per_device) -> None:
    places = device_places(devices, per_device)
    runtime = Runtime(per_device=per_device)
    assert len(places) == jobs_at_once("cuda", runtime, cores=2, devices=len(devices), extra=1)
    for jobs in range(1, len(places) + 1):
        counts = [places[:jobs].count(device) for device in devices]
        assert max(counts) - min(counts) <= 1


def test_auto_takes_the_cores_for_tiny_models_and_for_no_others(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device(Runtime(), SMALL).type == "cpu"
    assert pick_device(Runtime(), SMALL + 1).type == "cuda"
    assert pick_device(Runtime(device="cuda"), 0).type == "cuda"
    assert Machine.of(Runtime(), 1, tmp_path).device.type == "cuda"  # nothing is known of them
    write_text(tmp_path / "teacher" / "model.safetensors", "few")
    assert Machine.of(Runtime(), 1, tmp_path).device.type == "cpu"
    write_reference(tmp_path / "student", ModelReference(id="a/model", revision="1"))
    assert Machine.of(Runtime(), 1, tmp_path).device.type == "cuda"


# ------------------------------------------------------------------------ children
def test_jobs_compute_on_several_threads_after_this_process_has(tmp_path) -> None:
    """In a process that has computed, on threads that do not survive a fork."""
    code = (
        "import torch\n"
        "from pathlib import Path\n"
        "from pipelines.runs.engines import run_jobs\n"
        "from tests.pipelines.test_workers import Product\n"
        "from tests.tiny import machine_in\n"
        "torch.set_num_threads(4)\n"
        "torch.ones(900, 900) @ torch.ones(900, 900)\n"
        f"machine = machine_in(Path({str(tmp_path)!r}), workers=2)\n"
        "done = [run_jobs([Product(n) for n in sizes], machine) for sizes in ([700], [800, 900])]\n"
        "print([one.result for each in done for one in each])\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=WATCHDOG, check=True
    )
    assert ended.stdout.split("\n")[-2] == "[4, 2, 2]"


def test_workers_end_when_their_parent_is_killed(tmp_path) -> None:
    """Both are at work, which each says, when the parent is killed."""
    code = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from tests.pipelines.test_workers import Number\n"
        "from tests.tiny import machine_in\n"
        "from pipelines.runs.engines import run_jobs\n"
        "def wait(*_):\n"
        "    os.write(1, f'{os.getpid()}\\n'.encode())\n"
        "    time.sleep(3600)\n"
        "Number.make = wait\n"
        "run_jobs([Number(1), Number(2)], machine_in(Path(sys.argv[1]), workers=2))\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    children = [psutil.Process(int(parent.stdout.readline())) for _ in range(2)]
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    _gone, alive = psutil.wait_procs(children, timeout=WATCHDOG)
    assert not alive


@dataclass(frozen=True)
class Victim:
    """Is killed, as by a system without memory."""

    name: str
    kind: ClassVar = int

    @property
    def key(self) -> str:
        return self.name

    def make(self, _machine: Machine, _folder: Path, _line: int) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return 0


def test_a_killed_worker_is_one_message_with_a_remedy(tmp_path) -> None:
    with pytest.raises(ChildProcessError, match=r"run the same command again.*runtime\.workers"):
        run_jobs([Victim("a"), Victim("b")], machine_in(tmp_path, workers=2))
