"""All methods against all others on each task: verdicts, and who wins, ties and loses how often.

One Holm correction over all pairs of a task. Knows no Markdown.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

from skd.report.reading.experiment import ExperimentResults
from skd.report.verdicts.compare import BETTER, TIE, WORSE, Verdict, couples, judge

OPPOSITE = {BETTER: WORSE, WORSE: BETTER, TIE: TIE}


@dataclass(frozen=True)
class MethodPair:
    """`verdict.method` against `verdict.other` on one task."""

    task: str
    verdict: Verdict


@dataclass(frozen=True)
class WinCount:
    """How a method did against all others."""

    wins: int
    ties: int
    losses: int


def all_pairs(results: ExperimentResults, *, resamples: int, seed: int) -> list[MethodPair]:
    names = list(combinations(results.methods, 2))
    return [
        MethodPair(task.name, verdict)
        for task in results.tasks
        for verdict in judge(couples(task, names), resamples, seed)
    ]


def win_count(pairs: list[MethodPair], method: str, task: str | None = None) -> WinCount:
    """Counts over one task, or over all."""
    words = [
        pair.verdict.word if pair.verdict.method == method else OPPOSITE[pair.verdict.word]
        for pair in pairs
        if method in (pair.verdict.method, pair.verdict.other) and task in (None, pair.task)
    ]
    return WinCount(words.count(BETTER), words.count(TIE), words.count(WORSE))
