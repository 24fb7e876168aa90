"""sacrebleu's own paired tests beside our verdicts, where a task has corpus chrF and BLEU.

A system is here a method with *all its seeds*: the outputs of one seed after those of the other,
each beside the other method's of the same seed and example. One test per seed would give as many
p-values as seeds and no rule to make them one. The price: an example counts once per seed although
its outputs are alike, so p is too small rather than too large, and the spread between training runs
is not seen at all. No verdict of the report rests on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from skd.metrics.base import Batch
from skd.report.reading.run import Run, TaskRun
from skd.report.sections.tables import TITLES, details, p_text, plain_text, row_name, table
from skd.report.verdicts.compare import ALPHA, BETTER, TIE, WORSE, Family
from skd.report.verdicts.sacrebleu_tests import SCORERS, paired
from skd.report.verdicts.statistics import holm

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


def checks(run: Run, reference: str) -> list[Check]:
    """The reference against each other method, on every task that has the metrics."""
    others = [method for method in run.methods if method != reference]
    if reference not in run.methods or not others:
        return []
    return [
        check
        for task in run.tasks
        if set(SCORERS) <= set(task.metrics)
        for check in _task(task, reference, others)
    ]


def _task(task: TaskRun, reference: str, others: Sequence[str]) -> list[Check]:
    systems = {name: _outputs(task, name) for name in (reference, *others)}
    references = Batch(task.rows, [], []).references
    scorers = {name: scorer(references) for name, scorer in SCORERS.items()}
    found = paired(systems, scorers, _trials(len(others)))
    corrected = iter(holm([p for results in found.values() for _, _, p, _ in results.values()]))
    return [
        Check(task.name, metric, reference, other, score, theirs, p, next(corrected), signature)
        for metric, results in found.items()
        for other, (score, theirs, p, signature) in results.items()
    ]


def _trials(others: int) -> int:
    return max(LEAST_TRIALS, TRIALS_PER_TEST * len(SCORERS) * others)


def _outputs(task: TaskRun, method: str) -> list[str]:
    seeds = task.models[method].examples.values()
    return [examples[i].output for examples in seeds for i in task.ids]


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
            (
                _table(of_task, families[task][0]),
                "\n".join(f"- {plain_text(text)}" for text in signatures),
            )
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


def _table(found: list[Check], family: Family) -> str:
    ours = _ours([family])
    by_other: dict[str, dict[str, Check]] = {}
    for check in found:
        by_other.setdefault(check.other, {})[check.metric] = check
    header = ["against"]
    for metric in SCORERS:
        header += [f"{TITLES[metric]}, difference", "Holm p", "verdict"]
    lines = []
    for other, by_metric in by_other.items():
        cells = [row_name(other)]
        for metric in SCORERS:
            check = by_metric[metric]
            difference = f"{check.score - check.other_score:+.1f}"
            cells += [difference, p_text(check.holm_p), check.word]
        lines.append([*cells, ours[other]])
    return table([*header, f"ours, {TITLES[family.task.primary]}"], lines)


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
