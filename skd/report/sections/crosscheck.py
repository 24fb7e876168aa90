"""`details/crosscheck.md`: sacrebleu's own paired tests beside our verdicts. Computes no test."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from skd.report.sections.cells import TITLES, details, p_text, plain_text, row_name, table
from skd.report.verdicts.comparison import Word
from skd.report.verdicts.crosscheck import CrossCheck, trial_count
from skd.report.verdicts.evidence import Evidence
from skd.report.verdicts.sacrebleu_tests import SCORERS

COLUMNS = (
    "task", "metric", "method", "other", "score", "other_score", "p", "holm_p", "verdict",
    "verdict_of_the_report", "signature",
)  # fmt: skip


def page(evidence: Evidence) -> str:
    """Empty where no task has the metrics."""
    checks = evidence.checks
    if not checks:
        return ""
    trials = trial_count(len({check.other for check in checks}))
    parts = [
        "# Cross-check: sacrebleu's own paired tests\n\n"
        f"`{checks[0].method}` against each other method by corpus scores: sacrebleu's paired "
        f"approximate randomisation over the outputs of all seeds, {trials:,} trials, "
        "Holm-corrected over both metrics and all methods of a task. It exchanges outputs, so it "
        "**cannot see the spread between training runs**: it says whether these students differ, "
        "our verdict whether other students of these methods would. Where it calls more "
        "differences, our verdict stands."
    ]
    for task in dict.fromkeys(check.task for check in checks):
        ours = _ours(evidence, task)
        of_task = [check for check in checks if check.task == task]
        signatures = dict.fromkeys(check.signature for check in of_task)
        body = "\n\n".join(
            (
                _table(of_task, evidence),
                "\n".join(f"- {plain_text(text)}" for text in signatures),
            )
        )
        parts += [_disagreement(task, of_task, ours), details(f"{task}: the tests", body)]
    return "\n\n".join(parts)


def rows(evidence: Evidence) -> Iterable[Sequence[object]]:
    """For the CSV."""
    for check in evidence.checks:
        ours = _ours(evidence, check.task)[check.other]
        yield (
            check.task, check.metric, check.method, check.other, check.score, check.other_score,
            check.p, check.holm_p, check.word.value, ours.value, check.signature,
        )  # fmt: skip


def _ours(evidence: Evidence, task: str) -> dict[str, Word]:
    """Our verdict on the reference against each other method."""
    verdicts = evidence.of(task).against_reference
    return {other: verdict.word for other, verdict in verdicts.items()}


def _table(checks: list[CrossCheck], evidence: Evidence) -> str:
    task = checks[0].task
    ours = _ours(evidence, task)
    by_other: dict[str, dict[str, CrossCheck]] = {}
    for check in checks:
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
            cells += [difference, p_text(check.holm_p), check.word.value]
        lines.append([*cells, ours[other].value])
    return table([*header, f"ours, {TITLES[evidence.of(task).metric]}"], lines)


def _disagreement(task: str, checks: list[CrossCheck], ours: Mapping[str, Word]) -> str:
    """One line per task, e.g. `translation: … chrF says better where ours is undecided: a, b.`"""
    groups: dict[tuple[str, Word, Word], list[str]] = {}
    for check in checks:
        if check.word != ours[check.other]:
            groups.setdefault((check.metric, check.word, ours[check.other]), []).append(check.other)
    if not groups:
        return f"{task}: both metrics agree with our verdict on every method."
    parts = [
        f"{TITLES[metric]} says *{word.value}* where ours is *{own.value}* against "
        + ", ".join(f"`{name}`" for name in names)
        for (metric, word, own), names in groups.items()
    ]
    opposite = any({word, own} == {Word.BETTER, Word.WORSE} for _, word, own in groups)
    ending = "" if opposite else " Nowhere do they point in opposite directions."
    return f"{task}: {'; '.join(parts)}.{ending}"
