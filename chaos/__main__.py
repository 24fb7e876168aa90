"""Strike a tiny experiment with faults, repeat the command after each, and count what it survived.

Fault number N of a seed is the same in every run, but for the moment's luck. What the record has
already is not done again, so that the same command goes on after an interruption. Needs git, make
and room for some hundred megabytes; faults of the disk need a user who may mount.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chaos import files, page
from chaos.case import Case, MissedError, NotPossibleError, cleared
from chaos.faults import FAULTS, LATE
from chaos.project import FOLDER, ROOT, Project
from chaos.same import differences

RECORD = ROOT / "chaos" / "record.jsonl"
_ATTEMPTS = 4
# One in so many runs the rest of the graph, by `make repro` itself
_WHOLE = 4


def strike(project: Project, name: str, number: int, seed: int) -> dict[str, Any]:
    """One row of the record."""
    began = time.monotonic()
    row = {"fault": name, "number": number, "seed": seed}
    for attempt in range(_ATTEMPTS):
        row |= _attempt(project, name, random.Random(f"{seed}-{name}-{number}-{attempt}"))
        if row["outcome"] != "missed":
            break
    return row | {"seconds": round(time.monotonic() - began, 1)}


def _attempt(project: Project, name: str, drawn: random.Random) -> dict[str, Any]:
    fault = FAULTS[name]
    whole = fault.whole and drawn.randrange(_WHOLE) == 0
    stages = [stage for stage in fault.stages if stage in LATE] if whole else fault.stages
    stage = drawn.choice(stages or fault.stages)
    case = Case(project, stage, whole and bool(stages), drawn)
    row = {"stage": stage, "command": "make repro" if case.whole else f"repro {stage}"}
    files.unmount(case)
    try:
        with cleared(case):
            row["did"] = fault.strike(case).replace(f"{case.work}/", "")  # wherever it lies
            case.repeat()
            found = differences(case.work, project.end, case.stages, fault.rounding)
    except MissedError as missed:
        return row | {"outcome": "missed", "did": str(missed)}
    except NotPossibleError as reason:
        return row | {"outcome": "not possible here", "did": str(reason)}
    except AssertionError as failure:
        return row | {"outcome": "failed", "why": str(failure)}
    finally:
        files.unmount(case)
    return row | (
        {"outcome": "failed", "why": "; ".join(found)} if found else {"outcome": "survived"}
    )


def read(record: Path) -> list[dict[str, Any]]:
    if not record.exists():
        return []
    return [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument(
        "--faults", type=int, default=20, help="how many, by turns through the table"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=FAULTS, nargs="+", help="these kinds alone")
    parser.add_argument("--record", type=Path, default=FOLDER / "record.jsonl")
    parser.add_argument("--minutes", type=float, help="begin no fault after so long")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the experiment lies")
    parser.add_argument("--list", action="store_true", help="only show the table")
    options = parser.parse_args(argv)
    if options.list:
        print(page.table())
        return
    sys.exit(run(options))


def run(options: argparse.Namespace) -> int:
    began = time.monotonic()
    project = Project.at(options.folder.resolve())
    project.make()
    done = {
        (row["number"], row["fault"]) for row in read(options.record) if row["seed"] == options.seed
    }
    names = options.only or list(FAULTS)
    options.record.parent.mkdir(parents=True, exist_ok=True)
    for number in range(options.faults):
        name = names[number % len(names)]
        if (number, name) in done:
            continue
        if options.minutes and time.monotonic() - began > 60 * options.minutes:
            break
        row = strike(project, name, number, options.seed)
        with options.record.open("a", encoding="utf-8") as record:
            print(json.dumps(row), file=record)
        print(f"{number + 1}: {row['fault']}, {row['command']}: {row['outcome']}", flush=True)
        if "why" in row:
            print(row["why"], flush=True)
    rows = read(options.record)
    print(page.summary(rows))
    if options.record.resolve() == RECORD:
        page.write(rows)
    return 1 if any(row["outcome"] == "failed" for row in rows) else 0


if __name__ == "__main__":
    main()
