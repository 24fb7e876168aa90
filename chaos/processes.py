"""Faults of processes: one of a command's own is killed, or asked to end, at a random moment.

Each function takes a case and gives what it did, in a few words.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
import time
from collections.abc import Callable

import psutil
import yaml

from chaos.case import LIMIT, Case, Command, MissedError, NotPossibleError, tail
from pipelines.orphans import is_dvc

Chosen = Callable[[list[str]], bool]
_ASKED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
FLOW = [sys.executable, "-m", "pipelines.orchestration.flow", "run", "--target"]


def _stage(words: list[str]) -> bool:
    return any(word.startswith("pipelines.stages.") for word in words)


def _runs(module: str) -> Chosen:
    return lambda words: module in " ".join(words)


# Victim -> its command line
VICTIMS: dict[str, Chosen] = {
    "stage": _stage,
    "dvc": is_dvc,
    "repro": _runs("-m pipelines.repro"),
    "supervisor": _runs("runner.py"),
    "flow": _runs("pipelines.orchestration.flow run"),
    "server": lambda words: "prefect" in " ".join(words) and "server" in " ".join(words),
    # At work: others of Ray's processes are called so, too, and a node ends with its agent
    "ray worker": lambda words: words[:1] != [] and words[0].startswith("ray::_work"),
    "ray node": lambda words: words[:1] != [] and words[0].endswith("/raylet"),
}


def find(command: Command, chosen: Chosen) -> list[psutil.Process]:
    """The command's processes of that kind, the eldest first."""
    found = []
    for process in [command.process, *command.below()]:
        with contextlib.suppress(psutil.Error):
            if chosen(process.cmdline()):
                found.append(process)
    return found


def _children(process: psutil.Process) -> list[psutil.Process]:
    """Those of a process that may have ended by now."""
    with contextlib.suppress(psutil.Error):
        return process.children()
    return []


def strike(victims: list[psutil.Process], signum: int = signal.SIGKILL) -> None:
    if not victims:
        raise MissedError("there was no such process at that moment")
    for process in victims:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signum)


def killed(victim: str, case: Case) -> str:
    """One kind of process is killed while the stage runs."""
    case.begin()
    command = case.start()
    case.in_the_stage(command)
    strike(find(command, VICTIMS[victim])[:1])
    return f"{victim} killed; the command ended with status {command.end()}"


def dvc_killed(case: Case) -> str:
    """DVC is killed wherever it is, in its own work, too."""
    case.begin()
    command = case.start()
    case.somewhere(command)
    strike(find(command, is_dvc)[:1])
    return f"DVC killed; the command ended with status {command.end()}"


def worker_killed(case: Case) -> str:
    """One of the processes that train or test side by side is killed."""
    case.begin()
    command = case.start()
    case.in_the_stage(command)
    inside = {child.pid for stage in find(command, _stage) for child in _children(stage)}
    workers = [process for process in find(command, _stage) if process.pid in inside]
    strike(workers[: case.drawn.randint(1, 2)])
    status = command.end()
    assert status, "it went on without its worker"
    assert "a process of this stage was killed" in command.said, tail(command.said)
    return f"worker killed; the command ended with status {status}"


def everything_killed(case: Case) -> str:
    """All processes at once, as where the machine's power goes."""
    case.begin()
    command = case.start()
    case.somewhere(command)
    strike([command.process, *command.below()])
    command.end()
    return "all processes killed at once"


def caller_killed(case: Case) -> str:
    """`make repro` alone is killed: what it started must not go on beside the repeated command."""
    case.begin()
    command = case.start()
    case.somewhere(command)
    strike(find(command, VICTIMS["repro"])[:1])
    return f"make repro killed, status {command.end()}"


def asked_to_end(case: Case) -> str:
    """The command gets SIGINT, SIGTERM or SIGHUP."""
    case.begin()
    command = case.start()
    case.somewhere(command)
    signum = case.drawn.choice(_ASKED)
    strike(find(command, VICTIMS["repro"])[:1], signum)
    return f"{signum.name}; the command ended with status {command.end()}"


def flow_struck(victim: str, case: Case) -> str:
    """`make flow` loses its flow, its server or a stage, and is not gone on with."""
    case.begin()
    command = case.start([*FLOW, case.stage])
    case.in_the_stage(command)
    found = find(command, VICTIMS[victim])
    # The first is what stands in the terminal; the last does the work
    strike(found if victim == "server" else found[-1:])
    return f"{victim} of the flow killed; the flow ended with status {command.end()}"


def interface_asked_to_end(case: Case) -> str:
    """`make ui` gets SIGTERM at a random moment and must end, with all that it started."""
    case.begin()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = case.start(["make", "-o", ".venv/.ready", "ui", f"PORT={port}"])
    command.wait_for(lambda: "Prefect UI" in command.said)
    command.sleep(case.drawn.uniform(0.0, 10.0))
    below = command.below()
    strike(find(command, _runs("flow ui"))[-1:], signal.SIGTERM)
    status = command.end()
    _, left = psutil.wait_procs(below, LIMIT / 10)
    assert not left, f"left behind: {left}"
    assert "never awaited" not in command.said, tail(command.said)
    return f"SIGTERM to make ui, which ended with status {status}"


def ray_killed(victim: str, case: Case) -> str:
    """A worker of Ray is killed in a job, which another one does then; or the node is."""
    from importlib.util import find_spec

    if find_spec("ray") is None:
        raise NotPossibleError("the extra `ray` is not installed")
    case.begin()
    params = case.work / "params.yaml"
    values = yaml.safe_load(params.read_text(encoding="utf-8"))
    values["runtime"]["engine"] = "ray"
    params.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    command = case.start()
    command.wait_for(lambda: find(command, VICTIMS["ray worker"]) != [])
    time.sleep(case.drawn.uniform(0.0, 3.0))
    strike(find(command, VICTIMS[victim])[:1])
    status = command.end()
    assert victim != "ray worker" or status == 0, tail(command.said)
    return f"{victim} killed; the command ended with status {status}"
