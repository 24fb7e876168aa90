"""Verdicts at equal budgets: methods tuned alike, at equal steps, tokens and seconds.

They are made as in the main comparison, corrected within each budget. Knows no Markdown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from skd.report.reading.analyses import Analyses
from skd.report.verdicts.families import planned
from skd.report.verdicts.spread import fit
from skd.report.verdicts.tables import Against, Verdict
from skd.results.evaluation import OutputRecord
from skd.tasks import TASKS

# (task, budget) -> the reference against the other methods
BudgetVerdicts = Mapping[tuple[str, str], Against]
# (method, steps) -> seed -> scores of the examples, all in one order
Scores = Mapping[tuple[str, int], Mapping[int | None, NDArray[np.float64]]]


def budget_verdicts(analyses: Analyses, reference: str, margin: float) -> BudgetVerdicts:
    """Empty for a task on which the reference was not tuned, or alone."""
    verdicts = {}
    for name, task in analyses.fairness.tasks.items():
        scores = _scores(analyses.budget_outputs[name], TASKS[task.kind].primary)
        for budget, methods in task.views.items():
            others = [method for method in methods if method != reference]
            if reference not in methods or not others:
                continue
            model = fit({method: scores[method, runs.steps] for method, runs in methods.items()})
            (comparisons,) = planned(model, {reference: others}).values()
            verdicts[name, budget] = Against(
                reference, tuple(Verdict(comparison, margin) for comparison in comparisons)
            )
    return verdicts


def _scores(records: Iterable[OutputRecord], primary: str) -> Scores:
    by_run: dict[tuple[str, int], dict[int | None, dict[str, float | None]]] = {}
    for record in records:
        assert record.steps is not None
        seeds = by_run.setdefault((record.model, record.steps), {})
        seeds.setdefault(record.seed, {})[record.id] = record.scores[primary]
    return {
        run: {
            seed: np.array([scores[i] for i in sorted(scores)], dtype=np.float64)
            for seed, scores in seeds.items()
        }
        for run, seeds in by_run.items()
    }
