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
    """The jobs' results in their order; one after the other where there is one place."""
    places = machine.places(extra)
    if len(places) == 1:
        return [finish(job, machine) for job in jobs]
    workers = min(len(places), len(jobs)) or 1
    # By fork, so that libraries are imported once: this process must not have computed on several
    # threads before, since threads do not survive it. Nor does the context of an accelerator.
    on_cores = machine.device.type == "cpu"
    context = multiprocessing.get_context("fork" if on_cores else "spawn")
    threads = max(1, torch.get_num_threads() // workers)
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
