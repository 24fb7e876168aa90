"""sacrebleu's own paired tests beside our verdicts, where a task has corpus chrF and BLEU.

sacrebleu's paired approximate randomisation (Riezler and Maxwell 2005) exchanges the outputs of two
systems row by row and scores the corpora anew. A system here is a method with *all its seeds*: the
outputs of one seed after those of the other, each beside the other method's of the same seed and
example. One test per seed would give as many p-values as seeds and no rule to make them one. The
price: an example counts once per seed although its outputs are alike, so p is too small rather
than too large, and the spread between training runs is not seen at all. A cross-check, no verdict
of the report rests on it. Knows no Markdown structure beyond its own section.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import zip_longest
from typing import Any

import numpy as np
from sacrebleu.metrics.base import Metric
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.significance import PairedTest

from skd.metrics.base import Batch, References
from skd.metrics.chrf import ReferenceTable
from skd.metrics.statistics import holm
from skd.report.compare import ALPHA, BETTER, TIE, WORSE, Family
from skd.report.run import Run, TaskRun
from skd.report.tables import TITLES, details, p_text, plain_text, row_name, table

SEED = "12345"  # sacrebleu's default: `sacrebleu --paired-ar` on the same outputs gives the same p
SEED_VARIABLE = "SACREBLEU_SEED"
LEAST_TRIALS = 1000
TRIALS_PER_TEST = 25  # so that the smallest possible p, corrected for all tests, is below ALPHA
COLUMNS = (
    "task", "metric", "method", "other", "score", "other_score", "p", "holm_p", "verdict",
    "verdict_of_the_report", "signature",
)  # fmt: skip


@dataclass(frozen=True)
class Check:
    """One method against another on one task by one corpus metric."""

    task: str
    metric: str  # of `skd.metrics`
    method: str
    other: str
    score: float  # percent, over all seeds' outputs
    other_score: float
    p: float
    holm_p: float  # over all comparisons and metrics of the task
    signature: str

    @property
    def word(self) -> str:
        if self.holm_p >= ALPHA or self.score == self.other_score:
            return TIE
        return BETTER if self.score > self.other_score else WORSE


class Chrf(CHRF):  # type: ignore[misc]
    """sacrebleu's chrF over `ReferenceTable`'s counts, which `tests/metrics` holds to be the same.

    Its own loop over the references takes half a minute where a row has 20 of them. Takes the
    outputs of any number of seeds, one seed after the other.
    """

    def __init__(self, references: Sequence[References]) -> None:
        super().__init__()
        counts = {len(row) for row in references}
        self.num_refs = counts.pop() if len(counts) == 1 else -1  # -1: "var" in the signature
        tables = [ReferenceTable(row) for row in references]
        self._rows = len(tables)
        self._counts = cache(lambda row, output: tables[row].statistics(output)[0])

    def _extract_corpus_statistics(self, hypotheses: Sequence[str], _references: Any) -> Any:
        """Per output: of each order the n-grams of output and reference, and the matches."""
        counts = [self._counts(place % self._rows, o) for place, o in enumerate(hypotheses)]
        # As floats, exact below 2**53: the sums over trials are then one fast matrix product.
        return np.stack(counts).transpose(0, 2, 1).reshape(len(counts), -1).astype(np.float64)


class Bleu(BLEU):  # type: ignore[misc]
    """sacrebleu's BLEU of the outputs of any number of seeds, one seed after the other."""

    def __init__(self, references: Sequence[References]) -> None:
        super().__init__(references=list(zip_longest(*references)))  # a list per reference number
        self._rows = len(references)

    def _extract_corpus_statistics(self, hypotheses: Sequence[str], _references: Any) -> Any:
        extract = super()._extract_corpus_statistics
        starts = range(0, len(hypotheses), self._rows)
        seeds = [extract(hypotheses[start : start + self._rows], None) for start in starts]
        return np.concatenate(seeds).astype(np.float64)


METRICS: dict[str, Callable[[Sequence[References]], Metric]] = {"chrf": Chrf, "bleu": Bleu}


def checks(run: Run, reference: str) -> list[Check]:
    """The reference against each other method, on every task that has the metrics."""
    others = [method for method in run.methods if method != reference]
    if reference not in run.methods or not others:
        return []
    return [
        check
        for task in run.tasks
        if set(METRICS) <= set(task.metrics)
        for check in _task(task, reference, others)
    ]


def _task(task: TaskRun, reference: str, others: Sequence[str]) -> list[Check]:
    systems = {name: _outputs(task, name) for name in (reference, *others)}
    references = Batch(task.rows, [], []).references
    scorers = {name: scorer(references) for name, scorer in METRICS.items()}
    found = paired(systems, scorers, _trials(len(others)))
    corrected = iter(holm([p for results in found.values() for _, _, p, _ in results.values()]))
    return [
        Check(task.name, metric, reference, other, score, theirs, p, next(corrected), signature)
        for metric, results in found.items()
        for other, (score, theirs, p, signature) in results.items()
    ]


def _trials(others: int) -> int:
    return max(LEAST_TRIALS, TRIALS_PER_TEST * len(METRICS) * others)


def _outputs(task: TaskRun, method: str) -> list[str]:
    seeds = task.models[method].examples.values()
    return [examples[i].output for examples in seeds for i in task.ids]


Results = dict[str, tuple[float, float, float, str]]  # other -> score, its score, p, signature


def paired(
    systems: Mapping[str, Sequence[str]], metrics: Mapping[str, Metric], trials: int
) -> dict[str, Results]:
    """The first system against each of the others, by metric.

    sacrebleu counts the trials that are strictly more extreme, so two systems that differ in few
    rows, or in none, would get p = 1 / (trials + 1). No exchange of k differing outputs can give a
    two-sided p below 2 / 2^k: the assignment as it is and its mirror image are as extreme. That
    bound is applied here; at k > 10 it does nothing.
    """
    first, *others = systems
    results: dict[str, Results] = {}
    for name, metric in metrics.items():
        with _seeded():
            test = PairedTest(list(systems.items()), {name: metric}, None, n_samples=trials)
        signatures, scores = test()
        ((shown, signature),) = signatures.items()
        ours, *theirs = scores[shown]
        results[name] = {
            other: (
                float(ours.score),
                float(result.score),
                max(float(result.p_value), _least_p(systems[first], systems[other])),
                str(signature),
            )
            for other, result in zip(others, theirs, strict=True)
        }
    return results


def _least_p(ours: Sequence[str], theirs: Sequence[str]) -> float:
    differing = sum(a != b for a, b in zip(ours, theirs, strict=True))
    return float(min(1.0, 2.0 ** (1 - differing)))


@contextmanager
def _seeded() -> Iterator[None]:
    """sacrebleu reads its seed from the environment; the report's is SEED whatever stands there."""
    before = os.environ.get(SEED_VARIABLE)
    os.environ[SEED_VARIABLE] = SEED
    try:
        yield
    finally:
        if before is None:
            del os.environ[SEED_VARIABLE]
        else:
            os.environ[SEED_VARIABLE] = before


# ---------------------------------------------------------------------- words
def section(found: list[Check], families: dict[str, list[Family]]) -> str:
    """Empty where no task has the metrics."""
    if not found:
        return ""
    trials = _trials(len({check.other for check in found}))
    parts = [
        "## Cross-check: sacrebleu's own paired tests\n\n"
        f"`{found[0].method}` against each other method by corpus scores: sacrebleu's paired "
        f"approximate randomisation over the outputs of all seeds, {trials:,} trials, "
        "Holm-corrected over both metrics and all methods of a task. It exchanges outputs, so it "
        "**cannot see the spread between training runs**: it says whether these students differ, "
        "our verdict whether other students of these methods would. Where it calls more "
        "differences, our verdict stands."
    ]
    for task in dict.fromkeys(check.task for check in found):
        ours = _ours(families[task])
        of_task = [check for check in found if check.task == task]
        signatures = dict.fromkeys(check.signature for check in of_task)
        body = "\n\n".join(
            (_table(of_task, ours), "\n".join(f"- {plain_text(text)}" for text in signatures))
        )
        parts += [_disagreement(task, of_task, ours), details(f"{task}: the tests", body)]
    return "\n\n".join(parts)


def rows(found: list[Check], families: dict[str, list[Family]]) -> Iterable[Sequence[object]]:
    """For the CSV."""
    for check in found:
        ours = _ours(families[check.task])[check.other]
        yield (
            check.task, check.metric, check.method, check.other, check.score, check.other_score,
            check.p, check.holm_p, check.word, ours, check.signature,
        )  # fmt: skip


def _ours(families: list[Family]) -> dict[str, str]:
    """Our verdict on the reference against each other method."""
    return {verdict.other: verdict.word for verdict in families[0].verdicts}


def _table(found: list[Check], ours: Mapping[str, str]) -> str:
    by_other: dict[str, dict[str, Check]] = {}
    for check in found:
        by_other.setdefault(check.other, {})[check.metric] = check
    header = ["against"]
    for metric in METRICS:
        header += [f"{TITLES[metric]}, difference", "Holm p", "verdict"]
    lines = []
    for other, by_metric in by_other.items():
        cells = [row_name(other)]
        for metric in METRICS:
            check = by_metric[metric]
            difference = f"{check.score - check.other_score:+.1f}"
            cells += [difference, p_text(check.holm_p), check.word]
        lines.append([*cells, ours[other]])
    return table([*header, "ours"], lines)


def _disagreement(task: str, found: list[Check], ours: Mapping[str, str]) -> str:
    """One line per task, e.g. `translation: … chrF says better where ours is a tie: a, b.`"""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for check in found:
        if check.word != ours[check.other]:
            groups.setdefault((check.metric, check.word, ours[check.other]), []).append(check.other)
    if not groups:
        return f"{task}: both metrics agree with our verdict on every method."
    parts = [
        f"{TITLES[metric]} says *{word}* where ours is *{own}* against "
        + ", ".join(f"`{name}`" for name in names)
        for (metric, word, own), names in groups.items()
    ]
    opposite = any(TIE not in (word, own) for _, word, own in groups)
    ending = "" if opposite else " Nowhere do they point in opposite directions."
    return f"{task}: {'; '.join(parts)}.{ending}"
