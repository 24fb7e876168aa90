"""Other students for the same teacher, on the validation split: the tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from skd.report.reading.experiment import ExperimentResults
from skd.report.sections.cells import NONE, TITLES, number, row_name, table, values_text
from skd.results.analyses import ScalingResult
from skd.tasks import TASKS

COLUMNS = ("student", "parameters", "layers", "hidden_size", "task", "method", "seed", "metric")
OWN = "student"  # of the section `models`


def section(students: Mapping[str, ScalingResult], results: ExperimentResults) -> str:
    """Empty where no other student was asked for. The experiment's own student stands beside."""
    if not students:
        return ""
    parts = [
        "## Students of other sizes\n\nBest validation metric while training; the student of the "
        "experiment itself in the first row, from the files of its own distillation."
    ]
    first = next(iter(students.values()))
    for task, methods in first.runs.items():
        title = TITLES[TASKS[first.kinds[task]].primary]
        header = [f"{task}: {title}", "parameters", "SFT start", *(f"`{m}`" for m in methods)]
        rows = [_own(results, task, list(methods))]
        rows += [_student(name, student, task) for name, student in students.items()]
        parts.append(table(header, rows))
    return "\n\n".join(parts)


def _own(results: ExperimentResults, task: str, methods: Sequence[str]) -> list[str]:
    training = next(each.training for each in results.tasks if each.name == task)
    cells = [
        values_text([run.validation.metric for run in training[method].runs.values()])
        if method in training
        else NONE
        for method in methods
    ]
    return [row_name(OWN), number(results.pair.student.size.parameters), NONE, *cells]


def _student(name: str, student: ScalingResult, task: str) -> list[str]:
    starts = [validation.metric for validation in student.starts[task].values()]
    cells = [
        values_text([run.validation.metric for run in seeds.values()])
        for seeds in student.runs[task].values()
    ]
    return [row_name(name), number(student.size.parameters), values_text(starts), *cells]


def scaling_rows(students: Mapping[str, ScalingResult]) -> Iterable[tuple[Any, ...]]:
    for name, student in students.items():
        size = (student.size.parameters, student.size.layers, student.size.hidden_size)
        for task, methods in student.runs.items():
            for method, seeds in methods.items():
                for seed, run in seeds.items():
                    yield name, *size, task, method, seed, run.validation.metric
