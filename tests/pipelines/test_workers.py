"""Jobs side by side: order, failures, and children that end with their parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys

import psutil
import pytest
import torch

from pipelines.runs.machine import Machine
from pipelines.runs.workers import run_jobs
from pipelines.settings.runtime import Runtime
from skd.errors import UserError

CPU = torch.device("cpu")
WATCHDOG = 120.0  # seconds after which a test that hangs fails


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_results_come_in_the_order_of_the_jobs(workers) -> None:
    assert run_jobs([lambda _line, i=i: i for i in range(5)], workers) == [0, 1, 2, 3, 4]


def test_jobs_run_side_by_side_in_processes_of_their_own() -> None:
    """Each waits for the other, which comes only if it runs meanwhile; so the first ends last."""
    last = multiprocessing.get_context("fork").Event()
    both = multiprocessing.get_context("fork").Barrier(2, timeout=WATCHDOG)

    def first(_line: int) -> int:
        both.wait()
        assert last.wait(WATCHDOG)
        return os.getpid()

    def second(_line: int) -> int:
        both.wait()
        last.set()
        return os.getpid()

    pids = run_jobs([first, second], 2)
    assert len({*pids, os.getpid()}) == 3


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failing_job_ends_the_stage_with_its_message(workers) -> None:
    def fail(_line: int) -> None:
        raise UserError("seed 21: the loss is nan")

    with pytest.raises(UserError, match="seed 21"):
        run_jobs([lambda _line: None, fail], workers)


def test_the_share_of_cores_is_set_by_whoever_runs_several_stages(monkeypatch) -> None:
    monkeypatch.delenv("SKD_WORKERS", raising=False)
    machine = Machine.of(Runtime(device="cpu", workers=5), decoding_batch=1)
    assert (machine.device, machine.jobs_at_once(extra=1)) == (CPU, 5)
    monkeypatch.setenv("SKD_WORKERS", "1")
    assert machine.jobs_at_once() == 1


def test_each_core_has_a_job_and_an_accelerator_one(monkeypatch) -> None:
    monkeypatch.delenv("SKD_WORKERS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: {0, 3, 4})
    machine = Machine.of(Runtime(device="cpu"), decoding_batch=1)
    assert (machine.jobs_at_once(), machine.jobs_at_once(extra=1)) == (3, 4)
    accelerated = Machine.of(Runtime(device="cuda", workers=5), decoding_batch=1)
    assert accelerated.jobs_at_once(extra=1) == 1


def test_workers_end_when_their_parent_is_killed() -> None:
    """Both are at work, which each says, when the parent is killed."""
    code = (
        "import os, time\n"
        "from pipelines.runs.workers import run_jobs\n"
        "def job(_line):\n"
        "    os.write(1, f'{os.getpid()}\\n'.encode())\n"
        "    time.sleep(3600)\n"
        "run_jobs([job] * 2, 2)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    children = [psutil.Process(int(parent.stdout.readline())) for _ in range(2)]
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    _gone, alive = psutil.wait_procs(children, timeout=WATCHDOG)
    assert not alive
