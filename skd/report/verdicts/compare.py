"""Who is better than whom: paired comparisons and the verdicts that the words rest on.

"better" needs all: a paired test over the examples and a t test over training runs and examples,
both below ALPHA after Holm's correction, and a bootstrap interval over seeds and examples that
leaves out zero. All else is a tie.
Knows no Markdown.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from numpy.typing import ArrayLike

from skd.report.reading.experiment import ExperimentResults, TaskResults
from skd.report.verdicts.statistics import Comparison, compare, holm, pooled_spread, seeds_needed

ALPHA = 0.05
BETTER, TIE, WORSE = "better", "tie", "worse"

Couples = Mapping[tuple[str, str], tuple[ArrayLike, ArrayLike]]  # names -> scores of both


@dataclass(frozen=True)
class Verdict:
    """One method against another on one task, by the task's primary metric."""

    method: str
    other: str
    comparison: Comparison
    holm_p: float
    seeds_needed: int | None  # to see the difference of the means in 80 % of repetitions

    @property
    def word(self) -> str:
        comparison = self.comparison
        if self.holm_p >= ALPHA or comparison.low <= 0 <= comparison.high:
            return TIE
        return BETTER if comparison.difference > 0 else WORSE


@dataclass(frozen=True)
class Family:
    """One reference against a set of methods, corrected together, on one task."""

    task: TaskResults
    reference: str
    verdicts: tuple[Verdict, ...]

    def among(self, names: Iterable[str], word: str) -> list[str]:
        wanted = set(names)
        return [v.other for v in self.verdicts if v.other in wanted and v.word == word]


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


def counterpart(results: ExperimentResults, reference: str) -> str | None:
    """The reference's algorithm from the `instruct` start, where the run has it."""
    task = results.tasks[0]
    for method in results.methods:
        if (
            method != reference
            and kind_of(task, method) == kind_of(task, reference)
            and start_of(task, method) == "instruct"
        ):
            return method
    return None


def families(
    results: ExperimentResults, reference: str, *, resamples: int, seed: int
) -> dict[str, list[Family]]:
    """Name of a task or a test set -> the reference against all methods, then its counterpart
    against its start.

    Each family is corrected on its own. Empty where `reference` is not among the methods.
    """
    tested = (*results.tasks, *results.test_sets)
    if reference not in results.methods:
        return {task.name: [] for task in tested}
    other_start = counterpart(results, reference)
    result: dict[str, list[Family]] = {}
    for task in tested:
        against = {reference: [m for m in results.methods if m != reference]}
        if other_start is not None:
            against[other_start] = same_start(task, other_start)
        result[task.name] = [
            Family(task, name, judge(couples(task, [(name, o) for o in others]), resamples, seed))
            for name, others in against.items()
            if others
        ]
    return result


def couples(task: TaskResults, names: Collection[tuple[str, str]]) -> Couples:
    scores = {name: task.scores(name) for name in {name for both in names for name in both}}
    return {(method, other): (scores[method], scores[other]) for method, other in names}


def judge(scored: Couples, resamples: int, seed: int) -> tuple[Verdict, ...]:
    """A verdict on the first of each couple, corrected over all of them."""
    # By identity: two revisions of a run have methods of the same names.
    systems = {id(scores): scores for both in scored.values() for scores in both}
    spread = pooled_spread(systems.values())
    comparisons = [
        compare(*scores, resamples=resamples, seed=seed, spread=spread)
        for scores in scored.values()
    ]
    corrected = holm([comparison.larger_p for comparison in comparisons])
    return tuple(
        Verdict(*names, comparison, p, seeds_needed(*scores))
        for (names, scores), comparison, p in zip(
            scored.items(), comparisons, corrected, strict=True
        )
    )
