"""Jobs side by side: order, failures, and children that end with their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch

from pipelines.runs.workers import count, pick_device, run_jobs
from pipelines.settings.runtime import Runtime
from skd.errors import UserError

CPU = torch.device("cpu")


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_results_come_in_the_order_of_the_jobs(workers) -> None:
    def job(number: int):
        def work(_line: int) -> int:
            time.sleep(0.02 * (5 - number))
            return number

        return work

    assert run_jobs([job(i) for i in range(5)], workers) == [0, 1, 2, 3, 4]


def test_jobs_run_side_by_side_in_processes_of_their_own() -> None:
    pids = run_jobs([lambda _line: time.sleep(0.3) or os.getpid() for _ in range(2)], 2)
    assert len(set(pids)) == 2
    assert os.getpid() not in pids


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failing_job_ends_the_stage_with_its_message(workers) -> None:
    def fail(_line: int) -> None:
        raise UserError("seed 21: the loss is nan")

    with pytest.raises(UserError, match="seed 21"):
        run_jobs([lambda _line: None, fail], workers)


def test_the_share_of_cores_is_set_by_whoever_runs_several_stages(monkeypatch) -> None:
    monkeypatch.delenv("SKD_WORKERS", raising=False)
    assert count(Runtime(workers=5), CPU) == 5
    monkeypatch.setenv("SKD_WORKERS", "1")
    assert count(Runtime(workers=5), CPU) == 1
    assert count(Runtime(workers=5), torch.device("cuda")) == 1
    assert pick_device(Runtime(device="cpu")) == CPU


def test_workers_end_when_their_parent_is_killed() -> None:
    code = (
        "import time\n"
        "from pipelines.runs.workers import run_jobs\n"
        "print('up', flush=True)\n"
        "run_jobs([lambda _: time.sleep(60)] * 2, 2)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    parent.stdout.readline()
    children: list[psutil.Process] = []
    deadline = time.time() + 20
    while len(children) < 2 and time.time() < deadline:
        children = psutil.Process(parent.pid).children(recursive=True)
        time.sleep(0.05)
    assert len(children) == 2
    time.sleep(1.0)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    _gone, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
