"""What one student cost, in numbers and as tables. Knows no score and no verdict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from skd.report.reading.experiment import MethodTraining, TaskResults
from skd.report.sections.cells import codes, number, table
from skd.results.runs import TrainedRun


@dataclass(frozen=True)
class CostColumn:
    title: str
    digits: int
    # None where a run has no such cost
    read: Callable[[TrainedRun], float | None]


# By the column's name in tables/costs.csv
COSTS = {
    "seconds": CostColumn("seconds", 1, lambda run: run.cost.seconds),
    "steps": CostColumn("steps", 0, lambda run: run.steps),
    "best_step": CostColumn("best step", 0, lambda run: run.best_step),
    "response_tokens": CostColumn("trained tokens", 0, lambda run: run.response_tokens),
    "student_sampled_tokens": CostColumn(
        "sampled tokens", 0, lambda run: run.student_sampled_tokens
    ),
    "teacher_passes": CostColumn("teacher passes", 0, lambda run: run.teacher_passes),
    "teacher_tokens": CostColumn("teacher tokens", 0, lambda run: run.teacher_tokens),
    "acceptance_rate": CostColumn("accepted %", 1, lambda run: run.acceptance_rate),
    "peak_memory_mib": CostColumn("peak MiB", 0, lambda run: run.cost.peak_memory),
}
PHASES = {  # of `skd.engine.meter` -> column
    "sampling": "student sampling",
    "teacher": "teacher",
    "loss": "loss and gradient",
    "optimiser": "optimiser",
    "data": "batches",
    "validation": "validation",
}


def mean_cost(training: MethodTraining, column: CostColumn) -> float | None:
    """Over the seeds that have one."""
    known = [cost for run in training.runs.values() if (cost := column.read(run)) is not None]
    return sum(known) / len(known) if known else None


def cost_table(task: TaskResults) -> str:
    """Means over seeds: what one student cost."""
    header = ["method", "prompts", *(column.title for column in COSTS.values())]
    rows = []
    for method, training in task.training.items():
        cells = [f"`{method}`", number(training.budget.prompts)]
        cells += [number(mean_cost(training, column), column.digits) for column in COSTS.values()]
        rows.append(cells)
    return table(header, rows)


def mean_phases(training: MethodTraining) -> dict[str, float]:
    """Phase -> seconds of one student, mean over the seeds."""
    phases = [run.cost.phases for run in training.runs.values()]
    return {name: sum(each.get(name, 0.0) for each in phases) / len(phases) for name in PHASES}


def overhead_table(task: TaskResults) -> str:
    """Shares of a run's seconds, and what the teacher did for a token that was trained on."""
    header = ["method", *(f"{title} %" for title in PHASES.values()), "teacher tokens ÷ trained"]
    rows = []
    for method, training in task.training.items():
        phases = mean_phases(training)
        whole = sum(phases.values()) or 1.0
        read, trained = (
            mean_cost(training, COSTS[name]) for name in ("teacher_tokens", "response_tokens")
        )
        cells = [number(100 * seconds / whole) for seconds in phases.values()]
        rows.append([f"`{method}`", *cells, f"{(read or 0.0) / max(1.0, trained or 1.0):.2f}"])
    return table(header, rows)


def budget_words(task: TaskResults) -> str:
    """Whether all methods had equal budgets, read from the files of the runs."""
    budgets = {method: training.budget for method, training in task.training.items()}
    short = [
        f"`{method}` (seed {seed}: {run.steps} steps)"
        for method, training in task.training.items()
        for seed, run in training.runs.items()
        if run.steps != training.budget.steps
    ]
    dropped = sum(
        run.dropped_prompts for training in task.training.values() for run in training.runs.values()
    )
    first = next(iter(budgets.values()))
    if all(budget == first for budget in budgets.values()):
        text = (
            f"{task.name}: equal. Every student had {first.steps:,} steps of {first.batch_size} "
            f"prompts, {first.prompts:,} prompts in all"
        )
    else:
        parts = [
            f"`{method}` {budget.steps} steps × {budget.batch_size}, {budget.prompts:,} prompts"
            for method, budget in budgets.items()
        ]
        text = f"{task.name}: NOT equal: {'; '.join(parts)}"
    if paired := [name for name, training in task.training.items() if training.method.paired]:
        text += f". {codes(paired)}: two responses for every prompt, about twice the trained tokens"
    if short:
        text += f". Ended early: {', '.join(short)}"
    return text + (f". Dropped for length: {dropped:,} prompts." if dropped else ".")
