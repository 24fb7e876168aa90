"""Faults of arithmetic, memory and time, inside the project's own processes.

Each function takes a case and gives what it did, in a few words.
"""

from __future__ import annotations

import os
import re
import time

from chaos.case import Case, Command, tail

_DAY = 86400.0


def loss_no_number(case: Case) -> str:
    """The loss of one step is not a number, as a fault of the hardware makes it."""
    case.begin()
    step = case.drawn.randrange(0, 20 if case.stage != "sft" else 7)
    _says(case.start_spoilt("no_number", step), 1, "lower the learning rate")
    return f"the loss of step {step + 1} was no number; one message names what to lower"


def memory_out_once(case: Case) -> str:
    """Memory is refused once: the step is made again as it was."""
    case.begin()
    step = case.drawn.randrange(0, 20 if case.stage != "sft" else 7)
    _says(case.start_spoilt("no_memory_once", step), 0, "")
    return f"memory refused once, at step {step + 1}; the run went on"


def memory_out_for_many(case: Case) -> str:
    """Memory is refused to many rows at once: the run goes on with half of them, and says so."""
    case.begin()
    rows = case.drawn.choice((1, 2, 3, 5))
    found = _says(case.start_spoilt("no_memory", rows), 0, r"\d+ rows at once from here on")
    return f"memory for {rows} rows at most: {found}"


def memory_out_for_one(case: Case) -> str:
    """Memory is refused to every row: one message names what to set."""
    case.begin()
    _says(case.start_spoilt("no_memory", 0), 1, "micro_batch_size.*gradient_checkpointing.*adapter")
    return "memory for no row at all; one message names what to set"


def clock_moved(case: Case) -> str:
    """The time of day jumps while all runs, and every file gets another time afterwards."""
    case.begin()
    command = case.start_spoilt("clock", case.drawn.randrange(1000))
    status = command.end()
    for path in case.work.rglob("*"):
        if path.is_file() and not path.is_symlink():
            moment = time.time() + case.drawn.uniform(-400.0, 400.0) * _DAY
            os.utime(path, (moment, moment))
    return f"the clock jumped; the command ended with status {status}"


def _says(command: Command, fails: int, pattern: str) -> str:
    """What the command says of the fault."""
    status = command.end()
    found = re.search(pattern, command.said)
    assert found, f"status {status}, and nothing like {pattern!r}\n{tail(command.said)}"
    assert bool(status) == bool(fails), f"status {status}\n{tail(command.said)}"
    assert "Traceback" not in command.said, tail(command.said, 40)
    return found[0]
