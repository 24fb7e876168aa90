"""What disk, memory and killed processes do to a command is one message with a remedy."""

from __future__ import annotations

import errno
import os
import pickle
import sqlite3

import httpx
import pytest
import requests
import torch
from huggingface_hub.errors import OfflineModeIsEnabled
from safetensors.torch import save_file

from pipelines.stages.command import run_command
from skd.errors import UnreachableError, UserError, fault_of_the_machine, out_of_memory, refusal


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a/b"), "'a/b': the disk is full"),
        (OSError(errno.EROFS, "Read-only file system", "a/b"), "'a/b': the folder is read-only"),
        (PermissionError(errno.EACCES, "Permission denied", "a/b"), "there is no permission"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "quota"),
        (Exception("I/O error: No space left on device (os error 28)"), "the disk is full"),
        (sqlite3.OperationalError("database or disk is full"), "the disk is full; free some"),
        (sqlite3.OperationalError("attempt to write a readonly database"), "is read-only"),
        (MemoryError(), "evaluate.batch_size"),
        (torch.OutOfMemoryError("CUDA out of memory."), "evaluate.batch_size"),
        (ChildProcessError("a process was killed"), "a process was killed"),
        (UnreachableError("the Hub does not answer"), "the Hub does not answer"),
    ],
)
def test_a_fault_of_the_machine_is_one_message(error, message, capsys) -> None:
    """Also where it has come from another process. Status 1: another attempt may go well."""
    assert message in fault_of_the_machine(pickle.loads(pickle.dumps(error)))  # noqa: S301

    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as end:
        run_command(main)
    assert end.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert message in said
    assert "Traceback" not in said


def test_a_network_that_does_not_answer_is_told_from_an_answer() -> None:
    """The flow tries again where another attempt may go well (status 1), and not else (2)."""
    unanswered = OSError("cannot load")
    unanswered.__cause__ = httpx.ConnectError("no route")
    for error in (unanswered, ConnectionError("reset"), requests.ConnectTimeout("slow")):
        assert refusal(error) is UnreachableError
    for error in (FileNotFoundError("no such data set"), OfflineModeIsEnabled("offline")):
        assert refusal(error) is UserError


@pytest.mark.parametrize(
    "error", [ValueError("x"), RuntimeError("shapes"), FileNotFoundError(2, "x"), KeyError("y")]
)
def test_a_fault_of_the_code_keeps_its_traceback(error) -> None:
    assert fault_of_the_machine(error) is None
    assert not out_of_memory(error)
    with pytest.raises(type(error)):
        run_command(lambda: (_ for _ in ()).throw(error))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")  # noqa: PTH110
def test_a_device_without_room_is_named_whoever_writes(tmp_path) -> None:
    with pytest.raises(OSError) as error, open("/dev/full", "w") as file:  # noqa: PT011, PTH123
        file.write("x")
    assert "the disk is full" in fault_of_the_machine(error.value)
    with pytest.raises(Exception) as error:  # noqa: PT011
        save_file({"a": torch.zeros(9)}, "/proc/none/x")
    assert fault_of_the_machine(error.value) is None  # no such folder: a fault of the code
