"""Verdicts on a sweep: each value of a setting against the first one, task by task.

A sweep keeps one number a run, its validation metric. So the runs alone are random, with seeds as
blocks: a verdict holds for the examples that were validated on. Knows no Markdown.
"""

from __future__ import annotations

from collections.abc import Mapping

from skd.report.verdicts.comparison import FEWEST_RUNS
from skd.report.verdicts.families import planned
from skd.report.verdicts.spread import fit
from skd.report.verdicts.tables import Against, Verdict
from skd.results.analyses import SweepRuns


def sweep_verdicts(sweep: SweepRuns, margin: float) -> Mapping[str, Against]:
    """Task -> the first value against the others; empty where there are too few runs.

    margin: points within which two values count as equal.
    """
    if len(sweep.seeds) < FEWEST_RUNS:
        return {}
    verdicts = {}
    for task, values in sweep.runs.items():
        first, *others = values
        scores = {
            value: {seed: [run.validation.metric] for seed, run in runs.items()}
            for value, runs in values.items()
        }
        comparisons = planned(fit(scores, given=True), {first: others}).get(first, [])
        verdicts[task] = Against(first, tuple(Verdict(each, margin) for each in comparisons))
    return verdicts
