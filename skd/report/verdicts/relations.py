"""How the methods of a run are related: the algorithm of a row, its start, its baselines.

Knows no score and no verdict.
"""

from __future__ import annotations

from skd.report.reading.experiment import ExperimentResults, TaskResults


def start_of(task: TaskResults, method: str) -> str:
    return task.training[method].settings.student_init


def kind_of(task: TaskResults, method: str) -> str:
    """The algorithm of a method row, whatever the row is called."""
    return task.training[method].settings.method


def same_start(task: TaskResults, reference: str) -> list[str]:
    """The other methods whose students began where the reference's did."""
    start = start_of(task, reference)
    return [m for m in task.training if m != reference and start_of(task, m) == start]


def baselines(task: TaskResults, reference: str) -> list[str]:
    """Of those, the ones without interleaved sampling."""
    return [m for m in same_start(task, reference) if task.training[m].method.baseline]


def row_of(task: TaskResults, kind: str) -> str | None:
    """The run's first row of that algorithm from the SFT start."""
    rows = (m for m in task.training if kind_of(task, m) == kind and start_of(task, m) == "sft")
    return next(rows, None)


def counterpart(results: ExperimentResults, reference: str) -> str | None:
    """The reference's algorithm from another start, where the run has it."""
    task = results.tasks[0]
    rows = (
        method
        for method in results.methods
        if kind_of(task, method) == kind_of(task, reference)
        and start_of(task, method) != start_of(task, reference)
    )
    return next(rows, None)


def planned_comparisons(results: ExperimentResults, reference: str) -> dict[str, list[str]]:
    """The reference against all others, and its counterpart against those of its own start.

    Empty where the run does not have the reference, or nothing beside it.
    """
    if reference not in results.methods:
        return {}
    plan = {reference: [m for m in results.methods if m != reference]}
    other_start = counterpart(results, reference)
    if other_start is not None:
        plan[other_start] = same_start(results.tasks[0], other_start)
    return {name: others for name, others in plan.items() if others}
