"""`details/comparisons.md`: the words task by task, planned comparisons, all pairs as a matrix."""

from __future__ import annotations

from skd.report.reading.experiment import ExperimentResults
from skd.report.sections import words
from skd.report.sections.cells import (
    LEGEND,
    NONE,
    SIGNS,
    TITLES,
    details,
    number,
    p_text,
    range_text,
    row_name,
    table,
)
from skd.report.verdicts.comparison import MOST_SEEDS
from skd.report.verdicts.evidence import Evidence
from skd.report.verdicts.relations import start_of
from skd.report.verdicts.tables import Against, Verdict, VerdictTable, win_count

MODEL = (
    "One comparison has one p and one interval, both from one model of the scores: methods are "
    "fixed, training seeds and test examples are drawn by chance, and methods of the same seed "
    "share what the seed does to all. The planned comparisons of a table are judged together "
    "(Dunnett), the remaining pairs too (Tukey); a pair that was planned has the same words in "
    "both places."
)


def page(results: ExperimentResults, evidence: Evidence) -> str:
    if len(results.methods) == 1:
        return "# Comparisons\n\nOne method: nothing was compared."
    parts = [
        "# Comparisons",
        MODEL,
        words.meaning(evidence.margin),
        _evidence(results),
        _task_by_task(results, evidence),
        *_planned(results, evidence),
        *_records(results, evidence),
    ]
    return "\n\n".join(part for part in parts if part)


def _evidence(results: ExperimentResults) -> str:
    count = len(results.seeds)
    seeds = f"{count} seeds" if count > 1 else "one seed"
    sizes = ", ".join(f"{len(task.rows):,} of {task.name}" for task in results.tasks)
    return f"Evidence: {seeds}; test examples: {sizes}."


def _task_by_task(results: ExperimentResults, evidence: Evidence) -> str:
    bullets = [
        f"- {words.task_words(evidence.of(task.name), against)}"
        for task in results.tasks
        for against in evidence.of(task.name).planned
    ]
    return "## Task by task\n\n" + "\n".join(bullets) if bullets else ""


def _planned(results: ExperimentResults, evidence: Evidence) -> list[str]:
    if not evidence.planned:
        return []
    parts = [
        "## Planned comparisons\n\nDifference: the named method minus the other, in points. *d*: "
        "mean over standard deviation of the examples' differences. *Smallest lead*: what 80 % of "
        "the repetitions of this run would find. *Seeds to see it*: how many of each method find "
        "the observed difference so often, by the same test."
    ]
    for task in results.tasks:
        for verdicts in evidence.tables[task.name].values():
            for against in verdicts.planned:
                parts.append(comparison_details(task.name, verdicts.metric, against))
    return parts


def comparison_details(task: str, metric: str, against: Against) -> str:
    return details(
        f"{task}, {TITLES[metric]}: <code>{against.reference}</code> against the others",
        comparison_table(against),
    )


def comparison_table(against: Against) -> str:
    header = ["against", "difference", "95 % interval", "effect d", "p", "verdict"]
    header += ["smallest lead", "seeds to see it"]
    return table(header, [_row(verdict) for verdict in against.verdicts])


def _row(verdict: Verdict) -> list[str]:
    comparison = verdict.comparison
    shown = [row_name(verdict.other), f"{comparison.difference:+.1f}"]
    if not verdict.possible:
        return [*shown, NONE, number(comparison.effect, 2), NONE, NONE, NONE, NONE]
    needed = comparison.seeds_needed
    return [
        *shown,
        range_text(verdict),
        number(comparison.effect, 2),
        p_text(comparison.p),
        verdict.word.value,
        number(comparison.smallest_lead(), 1),
        f"> {MOST_SEEDS}" if needed is None else number(needed),
    ]


def _records(results: ExperimentResults, evidence: Evidence) -> list[str]:
    tables = [evidence.of(task.name) for task in results.tasks]
    if not any(verdicts.possible for verdicts in tables):
        return []
    begun = {start_of(results.tasks[0], method) for method in results.methods}
    starts = " Methods from the instruct start began as another student." if len(begun) > 1 else ""
    return [
        "## Every method against every other\n\nBetter–equal–undecided–worse by the primary "
        f"metric, corrected over all pairs of a task. Most net wins first.{starts}",
        _record_table(results, tables),
        *(
            details(
                f"{verdicts.task.name}, {TITLES[verdicts.metric]}: row against column",
                f"{LEGEND}\n\n{_matrix(verdicts)}",
            )
            for task in results.tasks
            for verdicts in evidence.tables[task.name].values()
        ),
    ]


def _record_table(results: ExperimentResults, tables: list[VerdictTable]) -> str:
    def cell(method: str, of: list[VerdictTable]) -> str:
        count = win_count(of, method)
        return f"{count.better}–{count.equal}–{count.undecided}–{count.worse}"

    rows = [
        [row_name(method), *(cell(method, [one]) for one in tables), cell(method, tables)]
        for method in sorted(results.methods, key=lambda m: -win_count(tables, m).net)
    ]
    return table(["method", *(task.name for task in results.tasks), "all"], rows)


def _matrix(verdicts: VerdictTable) -> str:
    methods = list(verdicts.task.training)

    def cell(row: str, column: str) -> str:
        return "" if row == column else SIGNS[verdicts.words[row, column]]

    numbers = [str(i) for i, _ in enumerate(methods, 1)]
    rows = [
        [f"{i} `{row}`", *(cell(row, column) for column in methods)]
        for i, row in zip(numbers, methods, strict=True)
    ]
    return table(["", *numbers], rows)
