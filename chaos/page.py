"""docs/chaos.md: the table of faults with what each came to, made from the record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from chaos.faults import FAULTS
from chaos.project import ROOT

PAGE = ROOT / "docs" / "chaos.md"
_TEXT = """# Faults on purpose

`make chaos` strikes a tiny experiment (the profile `smoke`, shrunk: one task, two methods, one
seed) with a fault at a random moment, repeats the command once, and compares. A fault is survived
when the repeated command ends with status 0 and the outputs are those of an experiment that was
left alone:

- The hashes in `dvc.lock` and the bytes of `data`, `models` (but `models/best`) and `records`.
- `metrics/`, `logs/` and `reports/results.csv` in all that does not measure the machine: no key,
  column or row named after seconds, phases or peak memory ([chaos/same.py](../chaos/same.py)).
- What the report draws and writes in words shows seconds throughout: it is there, and not empty.
  So is `models/best`, a copy of a student with its card.

One in four runs the rest of the graph by `make repro`; the others what it calls, with the stage as
its target: `python -m pipelines.repro STAGE`. A fault that met nothing (the command had ended
before) is drawn again, and is not counted where it misses four times. What a machine cannot give (a
mount without the right to it, Ray where it is not installed) is said and not counted.

    make chaos                            # 20 faults
    make chaos FAULTS=200 RECORD=chaos/record.jsonl    # the record; goes on where it was
    python -m chaos --only "disk full" --faults 5

## The record

{summary}

{table}

Out of memory in a training step: the step is made again as it was, then with half the rows at once,
down to one. The loss is a sum over rows, so nothing changes but its rounding (and the masks of
dropout); the run says so on standard error. That is the one row above where outputs are equal up to
rounding. Where there is no memory for one row, a message names `micro_batch_size`,
`gradient_checkpointing` and `adapter`.
"""


def summary(rows: Sequence[dict[str, Any]]) -> str:
    counts = Counter(row["outcome"] for row in rows)
    struck = counts["survived"] + counts["failed"]
    text = f"survived {counts['survived']} of {struck} faults"
    others = [f"{counts[name]} {name}" for name in ("missed", "not possible here") if counts[name]]
    return text + (f" ({', '.join(others)})" if others else "")


def table(rows: Sequence[dict[str, Any]] = ()) -> str:
    lines = ["| Fault | What happens | Remedy before the repeat | Survived |", "|:--|:--|:--|--:|"]
    for name, fault in FAULTS.items():
        own = Counter(row["outcome"] for row in rows if row["fault"] == name)
        struck = own["survived"] + own["failed"]
        count = f"{own['survived']} of {struck}" if struck else "–"
        lines.append(f"| {name} | {fault.what} | {fault.remedy} | {count} |")
    return "\n".join(lines)


def text(rows: Sequence[dict[str, Any]]) -> str:
    return _TEXT.format(summary=f"{summary(rows).capitalize()}.", table=table(rows))


def write(rows: Sequence[dict[str, Any]]) -> None:
    PAGE.write_text(text(rows), encoding="utf-8")
