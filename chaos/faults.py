"""The table of faults: what each is, how it strikes, during which stages, what is expected then.

After every fault the repeated command finishes with status 0 and the outputs are those of an
experiment that was left alone (`chaos/same.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from chaos import files, processes, training
from chaos.case import Case

# Stages by what they do; a stage that is quick to repeat is better than one that is not
TRAINS = ("sft", "distill@sft", "distill@skd")
ANY = ("prepare@summarization", "base", *TRAINS, "evaluate", "probe", "report", "export")
CACHED = ("prepare@summarization", "base", *TRAINS, "evaluate", "export")
# From these on the whole graph is quick enough to be run to its end
LATE = ("evaluate", "probe", "report", "export")


@dataclass(frozen=True)
class Fault:
    """A kind of fault."""

    # For people
    what: str
    # Strikes, and says what it did. AssertionError: the struck command itself did what it must not
    strike: Callable[[Case], str]
    stages: tuple[str, ...] = ANY
    # What must happen before the command is repeated
    remedy: str = "none"
    # Outputs are equal up to rounding: the sum of a step was made in other parts
    rounding: bool = False
    # Whether the rest of the graph may be run, too
    whole: bool = True


FAULTS: dict[str, Fault] = {
    "stage killed": Fault("SIGKILL to the stage", partial(processes.killed, "stage")),
    "DVC killed": Fault("SIGKILL to DVC, also in its own work", processes.dvc_killed),
    "make repro killed": Fault("SIGKILL to `make repro` alone", processes.caller_killed),
    "supervisor killed": Fault(
        "SIGKILL to the process between it and DVC", partial(processes.killed, "supervisor")
    ),
    "everything killed": Fault("SIGKILL to all at once", processes.everything_killed),
    "asked to end": Fault("SIGINT, SIGTERM or SIGHUP to `make repro`", processes.asked_to_end),
    "worker killed": Fault(
        "SIGKILL to one of the processes side by side",
        processes.worker_killed,
        ("sft", "evaluate"),
    ),
    "flow killed": Fault(
        "SIGKILL to the flow", partial(processes.flow_struck, "flow"), TRAINS, whole=False
    ),
    "stage of a flow killed": Fault(
        "SIGKILL to a stage under the flow",
        partial(processes.flow_struck, "stage"),
        TRAINS,
        whole=False,
    ),
    "server before the flow": Fault(
        "SIGKILL to Prefect's server while the flow runs",
        partial(processes.flow_struck, "server"),
        TRAINS,
        whole=False,
    ),
    "make ui asked to end": Fault(
        "SIGTERM to `make ui`", processes.interface_asked_to_end, ("export",), whole=False
    ),
    "Ray worker killed": Fault(
        "SIGKILL to a worker of Ray, whose job another one does",
        partial(processes.ray_killed, "ray worker"),
        TRAINS,
        whole=False,
    ),
    "Ray node killed": Fault(
        "SIGKILL to the node that is the whole cluster, while it works",
        partial(processes.ray_killed, "ray node"),
        TRAINS,
        whole=False,
    ),
    "checkpoint": Fault(
        "a kill, then a file of the state or of the best weights cut off, changed or gone",
        files.checkpoint_spoilt,
        ("distill@sft", "distill@skd", "sft"),
    ),
    "finished work": Fault(
        "a file of finished work in scratch cut off, changed or gone",
        files.finished_work_spoilt,
        (*TRAINS, "evaluate"),
    ),
    "output": Fault("a file of an output cut off or gone", files.output_spoilt, CACHED),
    "cache": Fault(
        "outputs gone, and an object of DVC's cache cut off, changed or gone",
        files.cache_spoilt,
        CACHED,
    ),
    "DVC's records": Fault("dvc.lock and rwlock cut off", files.lock_spoilt, ANY),
    "metrics": Fault(
        "a file of metrics/, code/ or reports/ cut off, changed or gone",
        files.metrics_spoilt,
        ANY,
    ),
    "disk full": Fault("a small disk without room", files.disk_full, ANY, "room is made"),
    "read-only": Fault(
        "a folder that is read-only", files.read_only, ANY, "the folder is made writable"
    ),
    "loss no number": Fault(
        "a loss that is NaN", training.loss_no_number, TRAINS, "the fault is over"
    ),
    "out of memory once": Fault("memory refused once", training.memory_out_once, TRAINS),
    "out of memory for many": Fault(
        "memory refused to more rows than some",
        training.memory_out_for_many,
        ("distill@sft",),
        rounding=True,
        whole=False,
    ),
    "out of memory for one": Fault(
        "memory refused to every row", training.memory_out_for_one, TRAINS, "there is memory"
    ),
    "clock moved": Fault(
        "the time of day jumps by up to a year while all runs, and times of files after it",
        training.clock_moved,
        ANY,
    ),
}
