"""Several processes of this machine that do one job together, each on its cores or its devices.

The process that is asked starts them, waits and gives what the first of them made. When one fails
or dies it ends the others, which would wait for it for good, and raises what that one died of.
Refuses to know what the work is.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

import torch

from pipelines.runs.machine import VISIBLE, Machine
from skd.errors import UserError
from skd.training.group import ALONE, Group, joined

Made = TypeVar("Made")
Work = Callable[[Machine, Group], Made]
# Seconds after a first failure in which others may tell theirs: the loss of a neighbour is seen
# at once, and is not what it died of
_GRACE = 1.0


def together(work: Work[Made], machine: Machine) -> Made:
    """What the first of `runtime.processes` processes makes of it; all of them do it.

    Raises what the process raised that failed first.
    """
    size = machine.runtime.processes
    if size == 1:
        return work(machine, ALONE)
    threads = max(1, torch.get_num_threads() // size)
    context: Any = multiprocessing.get_context(start_method(machine, threads))
    with tempfile.TemporaryDirectory(prefix="skd-") as folder:
        members: dict[Connection, BaseProcess] = {}
        try:
            for rank, shown in enumerate(machine.devices_of_processes()):
                ours, theirs = context.Pipe(duplex=False)
                given = (work, machine, rank, Path(folder) / "meeting", threads, shown, theirs)
                members[ours] = context.Process(target=_be_one, args=given, name=f"process {rank}")
                members[ours].start()
                theirs.close()
            return _wait_for(members)
        finally:
            for member in members.values():
                member.kill()
                member.join()


def start_method(machine: Machine, threads: int) -> str:
    """By fork, so that libraries are imported once.

    The threads that this process may have computed on do not survive it: a child that computes on
    several would wait for them for good. Nor does the context of an accelerator.
    """
    return "fork" if machine.device.type == "cpu" and threads == 1 else "spawn"


def settle(threads: int, shown: str | None) -> None:
    """What a process does first that computes for another one.

    shown: the accelerators that it sees, as `Machine` names them; None: no choice is made.
    """
    if shown is not None:
        os.environ[VISIBLE] = shown  # before the first call of CUDA, which reads it
    torch.set_num_threads(threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # its threads did not survive the fork
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _be_one(
    work: Work[Any],
    machine: Machine,
    rank: int,
    meeting: Path,
    threads: int,
    shown: str | None,
    teller: Connection,
) -> None:
    settle(threads, shown)
    if rank:  # the first shows how far it is
        machine = replace(machine, runtime=replace(machine.runtime, progress=False))
    try:
        with joined(rank, machine.runtime.processes, meeting) as group:
            made = work(machine, group)
        teller.send((None, made if rank == 0 else None))
    except BaseException as error:  # it is raised by who started this process
        _tell(teller, error)
        os._exit(1)  # at once: what is left of the group would wait for the others


def _tell(teller: Connection, error: BaseException) -> None:
    where = traceback.format_exc()
    try:
        teller.send((error, where))
    except Exception:  # it cannot be pickled
        teller.send((RuntimeError(f"{type(error).__name__}: {error}"), where))


def _wait_for(members: Mapping[Connection, BaseProcess]) -> Any:
    """What the first has made, when all are done."""
    made = None
    left = dict(members)
    while left:
        for teller in _ready(left):
            error, said = _heard(teller, left.pop(teller))
            if error is not None:
                _raise(error, said, left)
            made = said if said is not None else made
    return made


def _raise(error: BaseException, said: str, left: Mapping[Connection, BaseProcess]) -> None:
    """Raise this error, or what another process says meanwhile that tells the user more."""
    failures: list[tuple[BaseException | None, Any]] = [(error, said)]
    deadline = time.monotonic() + _GRACE
    others = dict(left)
    while others and (ready := _ready(others, max(0.0, deadline - time.monotonic()))):
        failures += [_heard(teller, others.pop(teller)) for teller in ready]
    told = [(error, said) for error, said in failures if error is not None]
    plain = [failure for failure in told if isinstance(failure[0], UserError)]
    error, said = (plain or told)[0]
    raise error from RuntimeError(said)


def _ready(left: Mapping[Connection, BaseProcess], timeout: float | None = None) -> list[Any]:
    """Those that have something to say, or whose process is gone."""
    return wait(list(left), timeout)


def _heard(teller: Connection, member: BaseProcess) -> tuple[BaseException | None, Any]:
    """What a process has failed with, and where; or None and what it has made."""
    try:
        told: tuple[BaseException | None, Any] = teller.recv()
    except EOFError:
        member.join()
        code = member.exitcode or 0
        how = signal.Signals(-code).name if code < 0 else f"status {code}"
        message = (
            f"{member.name} of those that train one run was ended ({how}), and the run with it. "
            "The system does that where memory is short: set fewer runtime.processes or a smaller "
            "micro_batch_size. The same command goes on from the last state that was kept"
        )
        return UserError(message), "it said nothing"
    return told
