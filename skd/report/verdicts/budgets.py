"""Verdicts at equal budgets: methods tuned alike, at equal steps, tokens and seconds.

They are made as in the main comparison, corrected within each budget. Knows no Markdown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from skd.report.reading.analyses import Analyses
from skd.report.verdicts.compare import Verdict, judge
from skd.results.evaluation import OutputRecord
from skd.tasks import TASKS

# (task, budget) -> the reference against each other method, by that method
BudgetVerdicts = Mapping[tuple[str, str], Mapping[str, Verdict]]
# (method, steps) -> [seeds, examples]
Scores = Mapping[tuple[str, int], NDArray[np.float64]]


def budget_verdicts(
    analyses: Analyses, reference: str, *, resamples: int, seed: int
) -> BudgetVerdicts:
    """Empty for a task on which the reference was not tuned."""
    verdicts: dict[tuple[str, str], dict[str, Verdict]] = {}
    for name, task in analyses.fairness.tasks.items():
        scores = _scores(analyses.budget_outputs[name], TASKS[task.kind].primary)
        for budget, methods in task.views.items():
            if reference not in methods:
                continue
            ours = scores[reference, methods[reference].steps]
            couples = {
                (reference, other): (ours, scores[other, runs.steps])
                for other, runs in methods.items()
                if other != reference
            }
            made = judge(couples, resamples, seed)
            verdicts[name, budget] = {verdict.other: verdict for verdict in made}
    return verdicts


def _scores(records: Iterable[OutputRecord], primary: str) -> Scores:
    by_run: dict[tuple[str, int], dict[int | None, dict[str, float | None]]] = {}
    for record in records:
        assert record.steps is not None
        seeds = by_run.setdefault((record.model, record.steps), {})
        seeds.setdefault(record.seed, {})[record.id] = record.scores[primary]
    return {
        run: np.array(
            [[scores[i] for i in sorted(scores)] for scores in seeds.values()], dtype=np.float64
        )
        for run, seeds in by_run.items()
    }
