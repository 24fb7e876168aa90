"""Bars of the rows that go through a model beside a run's steps. What is quickly done shows none.

Refuses to know what is done with the rows.
"""

from __future__ import annotations

from typing import Any

from tqdm import tqdm

from pipelines.runs.machine import Machine

# Seconds after which it is no longer quick
_QUICK = 3.0


def rows_bar(what: str, rows: int, machine: Machine, line: int) -> tqdm[Any]:
    """line: of the terminal, counted from the first bar's."""
    return tqdm(
        total=rows,
        desc=what,
        unit=" rows",
        position=line,
        leave=False,
        delay=_QUICK,
        mininterval=1.0,
        disable=not machine.runtime.progress,
    )
