"""The engine `local`: jobs side by side in processes of this machine, on its cores or its devices.

Small trainings side by side, with a thread each, finish sooner than one after the other on all
threads. Refuses to know what the jobs do.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import torch

from pipelines.runs.jobs import Finished, Job, Result, finish
from pipelines.runs.machine import Machine
from pipelines.runs.progress import Trains
from pipelines.runs.ranks import settle, start_method


def run_in_processes(
    jobs: Sequence[Job[Result]], machine: Machine, extra: int
) -> list[Finished[Result]]:
    """The jobs' results in their order; in this process where there is one place or one job."""
    processes = machine.runtime.processes if any(isinstance(job, Trains) for job in jobs) else 1
    places = machine.places(extra, processes)
    workers = min(len(places), len(jobs))
    if workers <= 1:
        return [finish(job, machine) for job in jobs]
    threads = max(1, torch.get_num_threads() // workers)
    context = multiprocessing.get_context(start_method(machine, threads))
    free = context.SimpleQueue()
    for place in places[:workers]:
        free.put(place)
    with ProcessPoolExecutor(workers, context, _start_worker, (threads, free)) as pool:
        futures = [pool.submit(finish, job, machine, line) for line, job in enumerate(jobs)]
        wait(futures, return_when=FIRST_EXCEPTION)
        if any(future.done() and future.exception() for future in futures):
            pool.shutdown(cancel_futures=True)
        try:
            return [future.result() for future in futures]
        except BrokenProcessPool:
            raise ChildProcessError(
                "a process of this stage was killed, perhaps by the system for want of memory: "
                "what was finished is kept, run the same command again; where it happens again, "
                "take fewer at once (runtime.workers, runtime.per_device)"
            ) from None


def _start_worker(threads: int, free: Any) -> None:
    settle(threads, free.get())
