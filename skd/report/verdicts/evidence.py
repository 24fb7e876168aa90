"""What tests and checks say of an experiment, computed once and shown in several places."""

from __future__ import annotations

from dataclasses import dataclass

from skd.report.reading.analyses import Analyses
from skd.report.reading.experiment import ExperimentResults
from skd.report.verdicts.budgets import BudgetVerdicts, budget_verdicts
from skd.report.verdicts.choice import Choice, choice
from skd.report.verdicts.crosscheck import CrossCheck, cross_checks
from skd.report.verdicts.failures import Failure, failures
from skd.report.verdicts.learning import Learning, learning
from skd.report.verdicts.overall import Overall, overall
from skd.report.verdicts.tables import VALID, VerdictTable, verdict_tables


@dataclass(frozen=True)
class Evidence:
    reference: str
    # Points within which two methods count as equal
    margin: float
    # Task or test set -> metric -> verdicts
    tables: dict[str, dict[str, VerdictTable]]
    # Over all tasks, by method, the one that closes most first
    overall: list[Overall]
    # The reference against the others at equal budgets
    budgets: BudgetVerdicts
    # What to use, task by task
    choices: list[Choice]
    # The reference against the others by sacrebleu
    checks: list[CrossCheck]
    failures: list[Failure]
    # Of the reference and of the highest mean, task by task
    learning: list[Learning]

    @property
    def possible(self) -> bool:
        """Whether there were runs enough for any verdict."""
        return any(table.possible for tables in self.tables.values() for table in tables.values())

    @property
    def planned(self) -> bool:
        """Whether the reference is compared with anything."""
        return any(table.planned for tables in self.tables.values() for table in tables.values())

    def of(self, task: str) -> VerdictTable:
        """By the primary metric."""
        return next(iter(self.tables[task].values()))

    def valid(self, task: str) -> VerdictTable | None:
        """By the share of valid outputs."""
        return self.tables[task].get(VALID)


def weigh(
    results: ExperimentResults,
    analyses: Analyses,
    reference: str,
    margin: float,
    *,
    resamples: int,
    seed: int,
) -> Evidence:
    tables = verdict_tables(results, reference, margin)
    return Evidence(
        reference,
        margin,
        tables,
        overall(results, reference, resamples=resamples, seed=seed),
        budget_verdicts(analyses, reference, margin),
        [choice(tables[task.name][task.primary]) for task in results.tasks],
        cross_checks(results, reference),
        failures(results),
        learning(results, reference),
    )
