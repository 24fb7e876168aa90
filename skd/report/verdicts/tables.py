"""The verdicts on one metric of one task: planned comparisons, all pairs, distance from the best.

All come from one model of the scores, so that two tables cannot contradict each other. Knows no
Markdown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from skd.report.reading.experiment import ExperimentResults, TaskResults
from skd.report.verdicts.comparison import FEWEST_RUNS, FEWEST_RUNS_OF_TWO, Comparison, Word
from skd.report.verdicts.families import ToBest, all_pairs, planned, typical_lead, with_best
from skd.report.verdicts.relations import planned_comparisons
from skd.report.verdicts.spread import Scores, fit

VALID = "valid"


@dataclass(frozen=True)
class Verdict:
    """A comparison, read with the margin within which two methods count as equal."""

    comparison: Comparison
    # Points of the metric
    margin: float

    @property
    def method(self) -> str:
        return self.comparison.method

    @property
    def other(self) -> str:
        return self.comparison.other

    @property
    def word(self) -> Word:
        return self.comparison.word(self.margin)

    @property
    def possible(self) -> bool:
        """Whether there were runs enough for any verdict."""
        return self.comparison.family is not None

    def mirrored(self) -> Verdict:
        return Verdict(self.comparison.mirrored(), self.margin)


@dataclass(frozen=True)
class Against:
    """One method against others that are judged together."""

    reference: str
    verdicts: tuple[Verdict, ...]

    def among(self, names: Iterable[str], word: Word) -> list[str]:
        """Those of `names` that the reference is better than, equal to, …"""
        wanted = set(names)
        return [v.other for v in self.verdicts if v.other in wanted and v.word == word]

    @property
    def smallest_lead(self) -> float:
        """Points that 80 % of the repetitions of this table would find."""
        return typical_lead(verdict.comparison for verdict in self.verdicts)


@dataclass(frozen=True)
class WinCount:
    """How a method did against all others."""

    better: int
    equal: int
    undecided: int
    worse: int

    @property
    def net(self) -> int:
        return self.better - self.worse


@dataclass(frozen=True)
class VerdictTable:
    """One metric of one task or test set."""

    task: TaskResults
    # A name of `skd.metrics`
    metric: str
    # Points within which two methods count as equal
    margin: float
    # The reference's comparisons, then those of its counterpart from another start
    planned: tuple[Against, ...]
    # Each method with each later one
    pairs: tuple[Verdict, ...]
    # By method
    to_best: Mapping[str, ToBest]

    @property
    def against_reference(self) -> Mapping[str, Verdict]:
        """The reference against each other method, by that method; empty without a reference."""
        if not self.planned:
            return {}
        return {verdict.other: verdict for verdict in self.planned[0].verdicts}

    @property
    def possible(self) -> bool:
        return any(verdict.possible for verdict in self.pairs)

    @property
    def runs_needed(self) -> int:
        """Runs of each method that a verdict takes."""
        return FEWEST_RUNS if len(self.task.training) > 2 else FEWEST_RUNS_OF_TWO

    @property
    def smallest_lead(self) -> float:
        """Of the planned comparisons, or of all pairs where nothing was planned."""
        if self.planned:
            return self.planned[0].smallest_lead
        return typical_lead(verdict.comparison for verdict in self.pairs)

    @cached_property
    def words(self) -> Mapping[tuple[str, str], Word]:
        """(method, other) -> how the method stands to the other, both ways."""
        both = [v for pair in self.pairs for v in (pair, pair.mirrored())]
        return {(verdict.method, verdict.other): verdict.word for verdict in both}

    def not_inferior(self) -> list[str]:
        """The methods that the best leads by less than the margin, in the order of the run."""
        return [name for name, each in self.to_best.items() if each.not_inferior(self.margin)]

    def may_be_best(self) -> list[str]:
        return [name for name, each in self.to_best.items() if each.may_be_best]


def verdict_table(
    task: TaskResults, metric: str, plan: Mapping[str, Sequence[str]], margin: float
) -> VerdictTable | None:
    """None where the metric was not scored for every method."""
    if not all(task.models[method].values(metric) for method in task.training):
        return None
    scores: Scores = {method: task.scores(method, metric) for method in task.training}
    model = fit(scores)
    made = planned(model, plan)
    known = [comparison for comparisons in made.values() for comparison in comparisons]
    return VerdictTable(
        task=task,
        metric=metric,
        margin=margin,
        planned=tuple(
            Against(reference, tuple(Verdict(comparison, margin) for comparison in comparisons))
            for reference, comparisons in made.items()
        ),
        pairs=tuple(Verdict(comparison, margin) for comparison in all_pairs(model, known)),
        to_best={each.method: each for each in with_best(model)},
    )


def verdict_tables(
    results: ExperimentResults, reference: str, margin: float
) -> dict[str, dict[str, VerdictTable]]:
    """Task or test set -> its primary metric, and the share of valid outputs where known."""
    plan = planned_comparisons(results, reference)
    return {
        task.name: {
            metric: table
            for metric in (task.primary, VALID)
            if (table := verdict_table(task, metric, plan, margin)) is not None
        }
        for task in (*results.tasks, *results.test_sets)
    }


def win_count(tables: Iterable[VerdictTable], method: str) -> WinCount:
    """Against all other methods, over these tables."""
    words = [word for table in tables for (name, _), word in table.words.items() if name == method]
    return WinCount(
        *(words.count(w) for w in (Word.BETTER, Word.EQUAL, Word.UNDECIDED, Word.WORSE))
    )
