"""What tests and checks say of an experiment, computed once and shown in several places."""

from __future__ import annotations

from dataclasses import dataclass

from skd.report.reading.analyses import Analyses
from skd.report.reading.experiment import ExperimentResults
from skd.report.verdicts.budgets import BudgetVerdicts, budget_verdicts
from skd.report.verdicts.compare import Family, families
from skd.report.verdicts.crosscheck import CrossCheck, cross_checks
from skd.report.verdicts.failures import Failure, failures
from skd.report.verdicts.pairs import MethodPair, all_pairs


@dataclass(frozen=True)
class Evidence:
    reference: str
    # By task or test set: the reference against the others
    families: dict[str, list[Family]]
    # All methods against all others
    pairs: list[MethodPair]
    # The reference against the others at equal budgets
    budgets: BudgetVerdicts
    # The reference against the others by sacrebleu
    checks: list[CrossCheck]
    failures: list[Failure]


def weigh(
    results: ExperimentResults, analyses: Analyses, reference: str, *, resamples: int, seed: int
) -> Evidence:
    return Evidence(
        reference,
        families(results, reference, resamples=resamples, seed=seed),
        all_pairs(results, resamples=resamples, seed=seed),
        budget_verdicts(analyses, reference, resamples=resamples, seed=seed),
        cross_checks(results, reference),
        failures(results),
    )
