"""All methods against all others on each task: verdicts, and who wins, ties and loses how often.

One Holm correction over all pairs of a task. Knows no Markdown.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

from skd.metrics.statistics import compare, holm, seeds_needed
from skd.report.compare import BETTER, TIE, WORSE, Verdict
from skd.report.read import Run, TaskRun

OPPOSITE = {BETTER: WORSE, WORSE: BETTER, TIE: TIE}


@dataclass(frozen=True)
class Pair:
    """`first` against `verdict.other` on one task."""

    task: str
    first: str
    verdict: Verdict
    seeds_needed: int | None  # to see the difference of the means in 80 % of repetitions


@dataclass(frozen=True)
class Record:
    """How a method did against all others."""

    wins: int
    ties: int
    losses: int


def all_pairs(run: Run, *, resamples: int, seed: int) -> list[Pair]:
    return [pair for task in run.tasks for pair in _pairs(task, run.methods, resamples, seed)]


def _pairs(task: TaskRun, methods: list[str], resamples: int, seed: int) -> list[Pair]:
    scores = {name: task.models[name].matrix(task.primary, task.ids) for name in methods}
    couples = list(combinations(methods, 2))
    found = [compare(scores[a], scores[b], resamples=resamples, seed=seed) for a, b in couples]
    corrected = holm([comparison.p for comparison in found])
    return [
        Pair(task.name, a, Verdict(b, comparison, p), seeds_needed(scores[a], scores[b]))
        for (a, b), comparison, p in zip(couples, found, corrected, strict=True)
    ]


def record(pairs: list[Pair], method: str, task: str | None = None) -> Record:
    """Counts over one task, or over all."""
    words = [
        pair.verdict.word if pair.first == method else OPPOSITE[pair.verdict.word]
        for pair in pairs
        if method in (pair.first, pair.verdict.other) and task in (None, pair.task)
    ]
    return Record(words.count(BETTER), words.count(TIE), words.count(WORSE))
