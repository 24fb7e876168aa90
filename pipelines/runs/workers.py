"""The engine `local`: jobs side by side in processes of this machine, on its cores or its devices.

Small trainings side by side, with a thread each, finish sooner than one after the other on all
threads. Refuses to know what the jobs do.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from typing import Any

import torch

from pipelines.runs.jobs import Finished, Job, Result, finish
from pipelines.runs.machine import VISIBLE, Machine


def run_in_processes(
    jobs: Sequence[Job[Result]], machine: Machine, extra: int
) -> list[Finished[Result]]:
    """The jobs' results in their order; in this process where there is one place or one job."""
    places = machine.places(extra)
    workers = min(len(places), len(jobs))
    if workers <= 1:
        return [finish(job, machine) for job in jobs]
    threads = max(1, torch.get_num_threads() // workers)
    # By fork, so that libraries are imported once. The threads that this process may have computed
    # on do not survive it: a child that computes on several would wait for them for good. Nor does
    # the context of an accelerator.
    may_fork = machine.device.type == "cpu" and threads == 1
    context = multiprocessing.get_context("fork" if may_fork else "spawn")
    free = context.SimpleQueue()
    for place in places[:workers]:
        free.put(place)
    with ProcessPoolExecutor(workers, context, _start_worker, (threads, free)) as pool:
        futures = [pool.submit(finish, job, machine, line) for line, job in enumerate(jobs)]
        wait(futures, return_when=FIRST_EXCEPTION)
        if any(future.done() and future.exception() for future in futures):
            pool.shutdown(cancel_futures=True)
        return [future.result() for future in futures]


def _start_worker(threads: int, free: Any) -> None:
    place = free.get()
    if place is not None:
        os.environ[VISIBLE] = place  # before the first call of CUDA, which reads it
    torch.set_num_threads(threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # its threads did not survive the fork
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
