"""Methods tuned alike, at equal steps, tokens and seconds: the tables.

The settings were chosen on validation; the comparison is on the test split.
"""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean
from typing import Any

from skd.report.reading.analyses import Analyses
from skd.report.sections.cells import (
    LEGEND,
    TITLES,
    details,
    number,
    row_name,
    sign,
    table,
    values_text,
)
from skd.report.verdicts.budgets import BudgetVerdicts
from skd.report.verdicts.tables import Verdict
from skd.results.analyses import BudgetRuns, TaskFairness, TuningTry
from skd.tasks import TASKS

BUDGETS = {
    "steps": "equal steps",
    "tokens": "equal tokens generated",
    "seconds": "equal training seconds",
}
COLUMNS = (
    "task", "view", "method", "steps", "mean", "seeds", "generated_tokens", "training_seconds",
    "difference", "low", "high", "p", "verdict",
)  # fmt: skip


def section(analyses: Analyses, verdicts: BudgetVerdicts, reference: str) -> str:
    """Empty where no task was compared so."""
    fairness = analyses.fairness
    if not fairness.tasks:
        return ""
    seeds = ", ".join(map(str, fairness.seeds))
    against = f" Against `{reference}`, corrected within each view: {LEGEND}." if verdicts else ""
    parts = [
        "## Equal tuning, three budgets\n\nEvery method had the same number of tries, chosen on "
        "validation with the first seed; the chosen settings stand here on the **test** split, "
        f"seeds {seeds}. *Equal tokens*, *equal seconds*: steps so many that each method takes "
        "what the most expensive one took at equal steps; a method that generates nothing while "
        f"training keeps its steps.{against}"
    ]
    for name, task in fairness.tasks.items():
        parts.append(_budgets(name, task, verdicts, reference))
        parts.append(details(f"{name}: the tries", _tries(task)))
    return "\n\n".join(parts)


def _verdicts(verdicts: BudgetVerdicts, task: str, budget: str) -> dict[str, Verdict]:
    """Of the reference, by the other method."""
    against = verdicts.get((task, budget))
    return {} if against is None else {verdict.other: verdict for verdict in against.verdicts}


def _budgets(name: str, task: TaskFairness, verdicts: BudgetVerdicts, reference: str) -> str:
    header = [f"{name}: {TITLES[TASKS[task.kind].primary]}", "chosen"]
    header += [cell for title in BUDGETS.values() for cell in (title, "steps")]
    chosen = {each.method: each for each in task.tries if each.chosen}
    rows = []
    for method, settings in chosen.items():
        shown = f"**{row_name(method)}**" if method == reference else row_name(method)
        cells = [shown, _settings(settings)]
        for budget in BUDGETS:
            runs = task.views[budget][method]
            verdict = _verdicts(verdicts, name, budget).get(method)
            mark = "" if verdict is None else sign(verdict)
            cells += [values_text(_values(task, runs)) + mark, number(runs.steps)]
        rows.append(cells)
    return table(header, rows, text_columns=2)


def _values(task: TaskFairness, runs: BudgetRuns) -> list[float]:
    primary = TASKS[task.kind].primary
    return [run.test[primary] for run in runs.seeds.values()]


def _settings(settings: TuningTry) -> str:
    return f"rate {settings.learning_rate:g}, {settings.setting} {settings.value}"


def _tries(task: TaskFairness) -> str:
    rows = [
        [f"`{each.method}`", _settings(each), f"{each.metric:.1f}", "×" if each.chosen else ""]
        for each in task.tries
    ]
    return table(["method", "settings", "validation", "chosen"], rows, text_columns=2)


def fairness_rows(analyses: Analyses, verdicts: BudgetVerdicts) -> Iterable[tuple[Any, ...]]:
    """For the CSV: one row per task, budget and method."""
    for name, task in analyses.fairness.tasks.items():
        for budget, methods in task.views.items():
            for method, runs in methods.items():
                values, seeds = _values(task, runs), [each.run for each in runs.seeds.values()]
                yield (
                    name,
                    budget,
                    method,
                    runs.steps,
                    fmean(values),
                    len(values),
                    fmean(run.generated_tokens for run in seeds),
                    fmean(run.cost.training_seconds for run in seeds),
                    *_compared(_verdicts(verdicts, name, budget).get(method)),
                )


def _compared(verdict: Verdict | None) -> tuple[object, ...]:
    """The reference minus this method."""
    if verdict is None or not verdict.possible:
        return ("",) * 5
    made = verdict.comparison
    return made.difference, made.low, made.high, made.p, verdict.word.value
