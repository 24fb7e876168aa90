"""Known failures: a short table for the main page, and all that was seen for the details."""

from __future__ import annotations

from skd.report.reading.experiment import ExperimentResults
from skd.report.sections.cells import codes, table
from skd.report.verdicts.failures import AWAY, HOME, Failure, checked

MOST_METHODS = 4  # named per failure and task


def summary(failures: list[Failure]) -> str:
    """A row per failure, whatever the number of methods."""
    if not failures:
        return "None was found ([what was checked](details/failures.md))."
    places: dict[str, dict[str, list[str]]] = {}
    for failure in failures:
        places.setdefault(failure.name, {}).setdefault(failure.task, []).append(failure.method)
    rows = [
        [name, "; ".join(f"{task}: {_few(methods)}" for task, methods in where.items())]
        for name, where in places.items()
    ]
    shown = table(["failure", "seen at"], rows, text_columns=2)
    return f"{shown}\n\nNumbers and remedies: [known failures](details/failures.md)."


def _few(methods: list[str]) -> str:
    if len(methods) <= MOST_METHODS:
        return codes(methods)
    return f"{len(methods)} methods"


def page(results: ExperimentResults, failures: list[Failure]) -> str:
    names = f"for every method and task: {', '.join(checked(HOME))}"
    if results.test_sets:
        names += f"; on other test sets, where the task did not show it: {', '.join(checked(AWAY))}"
    title = "# Known failures\n\n"
    if not failures:
        return f"{title}Checked {names}. None was found."
    shown = table(
        ["task", "method", "failure", "numbers", "what to do"],
        [[f.task, f"`{f.method}`", f.name, f.numbers, f.remedy] for f in failures],
        text_columns=5,
    )
    return f"{title}{shown}\n\nChecked {names}."
