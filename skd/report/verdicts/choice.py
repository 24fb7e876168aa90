"""Which method to use: the cheapest of those that the best does not lead by more than the margin.

Rests on the comparisons with the best (Hsu), never on the lack of a verdict. Knows no Markdown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

from skd.report.reading.experiment import TaskResults
from skd.report.verdicts.learning import highest
from skd.report.verdicts.tables import VerdictTable


@dataclass(frozen=True)
class Choice:
    """Of one task."""

    task: TaskResults
    # The method with the highest mean
    top: str
    # The methods that are not inferior to the best, the cheapest first
    good: list[str]
    # The methods that may be the best, in the order of the run
    may_be_best: list[str]

    @property
    def cheapest(self) -> str | None:
        """None where no method is shown to be good enough."""
        return self.good[0] if self.good else None

    @property
    def use(self) -> str:
        return self.cheapest or self.top


def seconds_of(task: TaskResults, method: str) -> float:
    """Of one student's training, mean over seeds."""
    runs = task.training[method].runs.values()
    return sum(run.cost.seconds for run in runs) / len(runs)


def choice(table: VerdictTable) -> Choice:
    task = table.task
    return Choice(
        task=task,
        top=highest(task),
        good=sorted(table.not_inferior(), key=lambda method: seconds_of(task, method)),
        may_be_best=table.may_be_best(),
    )


def good_everywhere(choices: Sequence[Choice]) -> list[str]:
    """The methods that are not inferior on any task, the cheapest over all tasks first."""
    common = reduce(set.intersection, (set(each.good) for each in choices))
    return sorted(
        common, key=lambda method: (sum(seconds_of(c.task, method) for c in choices), method)
    )
