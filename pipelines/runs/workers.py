"""Independent jobs of one stage side by side, in processes.

Small trainings side by side, with a thread each, finish sooner than one after the other on all
threads. A failed job ends the stage with that job's message. Refuses to know what the jobs do.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from typing import TypeVar

import torch

Result = TypeVar("Result")
_jobs: Sequence[Callable[[int], object]] = ()


def run_jobs(jobs: Sequence[Callable[[int], Result]], workers: int) -> list[Result]:
    """The jobs' results in their order. Each job is given the line of its progress bar.

    Raises what the first failing job raised; jobs that were not yet started are dropped.
    """
    if workers == 1 or len(jobs) <= 1:
        return [job(0) for job in jobs]
    # Jobs reach the children by fork, so that rows and settings need no pickling. The parent must
    # not have computed with torch before, since threads do not survive a fork.
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
