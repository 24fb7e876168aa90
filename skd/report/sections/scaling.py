"""Other students for the same teacher: metrics/scaling/*.json, on the validation split."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from skd.report.reading.run import Json, Run
from skd.report.sections.tables import NONE, TITLES, number, row_name, table, values_text
from skd.tasks import TASKS

COLUMNS = ("student", "parameters", "layers", "hidden_size", "task", "method", "seed", "metric")
OWN = "student"  # of the section `models`


def section(students: dict[str, Json], run: Run) -> str:
    """Empty where no other student was asked for. The experiment's own student stands beside."""
    if not students:
        return ""
    parts = [
        "### Students of other sizes\n\nBest validation metric while training; the student of the "
        "experiment itself in the first row, from the files of its own distillation."
    ]
    facts = next(iter(students.values()))
    for task, methods in facts["runs"].items():
        title = TITLES[TASKS[facts["kinds"][task]].primary]
        header = [f"{task}: {title}", "parameters", "SFT start", *(f"`{m}`" for m in methods)]
        rows = [_own(run, task, list(methods))]
        rows += [_student(name, found, task) for name, found in students.items()]
        parts.append(table(header, rows))
    return "\n\n".join(parts)


def _own(run: Run, task: str, methods: list[str]) -> list[str]:
    training = next(t.training for t in run.tasks if t.name == task)
    cells = [
        values_text([s["validation"]["metric"] for s in training[m].seeds.values()])
        if m in training
        else NONE
        for m in methods
    ]
    return [row_name(OWN), number(run.base["pair"]["student"]["parameters"]), "", *cells]


def _student(name: str, found: Json, task: str) -> list[str]:
    starts = [facts["metric"] for facts in found["starts"][task].values()]
    cells = [
        values_text([run["validation"]["metric"] for run in seeds.values()])
        for seeds in found["runs"][task].values()
    ]
    return [row_name(name), number(found["parameters"]), values_text(starts), *cells]


def scaling_rows(students: dict[str, Json]) -> Iterable[tuple[Any, ...]]:
    for name, found in students.items():
        size = (found["parameters"], found["layers"], found["hidden_size"])
        for task, methods in found["runs"].items():
            for method, seeds in methods.items():
                for seed, run in seeds.items():
                    yield name, *size, task, method, seed, run["validation"]["metric"]
