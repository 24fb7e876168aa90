"""sacrebleu's own paired tests beside our verdicts, where a task has corpus chrF and BLEU.

A system is here a method with *all its seeds*: the outputs of one seed after those of the other,
each beside the other method's of the same seed and example. One test per seed would give as many
p-values as seeds and no rule to make them one. The price: an example counts once per seed although
its outputs are alike, so p is too small rather than too large, and the spread between training runs
is not seen at all. No verdict of the report rests on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from skd.metrics.base import Batch
from skd.report.reading.experiment import ExperimentResults, TaskResults
from skd.report.verdicts.comparison import ALPHA, Word
from skd.report.verdicts.sacrebleu_tests import SCORERS, paired
from skd.report.verdicts.statistics import holm

LEAST_TRIALS = 1000
TRIALS_PER_TEST = 25  # so that the smallest possible p, corrected for all tests, is below ALPHA


@dataclass(frozen=True)
class CrossCheck:
    """One method against another on one task by one corpus metric."""

    task: str
    # A name of `skd.metrics`
    metric: str
    method: str
    other: str
    # Percent, over all seeds' outputs
    score: float
    other_score: float
    p: float
    # Corrected over all comparisons and metrics of the task
    holm_p: float
    signature: str

    @property
    def word(self) -> Word:
        """There is no interval, so nothing is ever called equal."""
        if self.holm_p >= ALPHA or self.score == self.other_score:
            return Word.UNDECIDED
        return Word.BETTER if self.score > self.other_score else Word.WORSE


def cross_checks(results: ExperimentResults, reference: str) -> list[CrossCheck]:
    """The reference against each other method, on every task that has the metrics."""
    others = [method for method in results.methods if method != reference]
    if reference not in results.methods or not others:
        return []
    return [
        check
        for task in results.tasks
        if set(SCORERS) <= set(task.metrics)
        for check in _task(task, reference, others)
    ]


def _task(task: TaskResults, reference: str, others: Sequence[str]) -> list[CrossCheck]:
    systems = {name: _outputs(task, name) for name in (reference, *others)}
    references = Batch(task.rows, [], []).references
    scorers = {name: scorer(references) for name, scorer in SCORERS.items()}
    results_of = paired(systems, scorers, trial_count(len(others)))
    corrected = iter(holm([p for tests in results_of.values() for _, _, p, _ in tests.values()]))
    return [
        CrossCheck(
            task.name, metric, reference, other, score, theirs, p, next(corrected), signature
        )
        for metric, tests in results_of.items()
        for other, (score, theirs, p, signature) in tests.items()
    ]


def trial_count(others: int) -> int:
    return max(LEAST_TRIALS, TRIALS_PER_TEST * len(SCORERS) * others)


def _outputs(task: TaskResults, method: str) -> list[str]:
    seeds = task.models[method].outputs.values()
    return [outputs[i].output for outputs in seeds for i in task.ids]
