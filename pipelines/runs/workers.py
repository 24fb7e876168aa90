"""Independent jobs of one stage side by side: a process per core, or in turn on an accelerator.

Small trainings side by side, a thread each, finish sooner than in turn on all threads. A
failed job ends the stage with that job's message. Knows nothing of what the jobs do.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from typing import TypeVar

import torch

from pipelines.settings.runtime import Runtime

Result = TypeVar("Result")
_jobs: Sequence[Callable[[int], object]] = ()


def pick_device(runtime: Runtime) -> torch.device:
    """`auto`: the first accelerator, else the CPU."""
    if runtime.device != "auto":
        return torch.device(runtime.device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def count(runtime: Runtime, device: torch.device, extra: int = 0) -> int:
    """How many jobs run at once: one per core and `extra`, unless the user says how many.

    With one extra, the last jobs of a stage share the cores instead of leaving one idle.

    SKD_WORKERS is set by whoever runs several stages at once.
    """
    if device.type != "cpu":
        return 1
    asked = os.environ.get("SKD_WORKERS")
    return int(asked) if asked else runtime.workers or len(os.sched_getaffinity(0)) + extra


def run_jobs(jobs: Sequence[Callable[[int], Result]], workers: int) -> list[Result]:
    """Results in order; each job gets the line of its progress bar.

    Raises what the first failing job raised; jobs not yet started are dropped.
    """
    if workers == 1 or len(jobs) <= 1:
        return [job(0) for job in jobs]
    # Jobs reach the children by fork: a closure over rows and settings needs no pickling.
    # The parent must not have computed with torch before, since threads do not survive a fork.
    global _jobs
    _jobs = jobs
    context = multiprocessing.get_context("fork")
    workers = min(workers, len(jobs))
    threads = max(1, torch.get_num_threads() // workers)
    with ProcessPoolExecutor(workers, context, _start_worker, (threads,)) as pool:
        futures = [pool.submit(_run_job, number) for number in range(len(jobs))]
        wait(futures, return_when=FIRST_EXCEPTION)
        if any(future.done() and future.exception() for future in futures):
            pool.shutdown(cancel_futures=True)
        return [future.result() for future in futures]  # type: ignore[misc]


def _run_job(number: int) -> object:
    return _jobs[number](number)


def _start_worker(threads: int) -> None:
    torch.set_num_threads(threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # its threads did not survive the fork
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
