"""The section on other test sets: the tasks' models on data of which nothing trained them.

Tables and verdicts are made as for a task; a set has no training, cost or curve of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from skd.report.reading.experiment import ExperimentResults, TaskResults
from skd.report.sections.provenance import source_text
from skd.report.sections.tables import (
    MARKS,
    TITLES,
    comparison_table,
    details,
    plain_text,
    row_name,
    table,
    values_text,
)
from skd.report.verdicts.compare import Family, Verdict
from skd.report.verdicts.statistics import seed_interval

COLUMNS = (
    "test_set",
    "task",
    "model",
    "metric",
    "mean",
    "half_width",
    "seeds",
    "reference",
    "difference",
    "low",
    "high",
    "p",
    "holm_p",
    "verdict",
)


def section(results: ExperimentResults, families: dict[str, list[Family]], reference: str) -> str:
    """Empty where no set was tested."""
    if not results.test_sets:
        return ""
    marks = f" Against `{reference}`, by the same tests as above, corrected within each set: "
    parts = [
        "## Other test sets\n\nThe same models on sets that no model was trained or chosen on. "
        "The last column repeats the task's own test split."
        + (f"{marks}▲ better, = tie, ▼ worse." if any(families.values()) else "")
    ]
    own = {task.name: task for task in results.tasks}
    for tested in results.test_sets:
        parts += _set(tested, own[_trained(tested)], families[tested.name], reference)
    return "\n\n".join(parts)


def rows(
    results: ExperimentResults, families: dict[str, list[Family]]
) -> Iterable[Sequence[object]]:
    """For the CSV: every metric of every model; the comparison beside the primary one."""
    for tested in results.test_sets:
        verdicts = _verdicts(families[tested.name])
        for name, model in tested.models.items():
            for metric in tested.metrics:
                if not (values := model.values(metric)):
                    continue
                interval = seed_interval(values)
                verdict = verdicts.get(name) if metric == tested.primary else None
                yield (
                    tested.name,
                    _trained(tested),
                    name,
                    metric,
                    interval.mean,
                    interval.half_width,
                    interval.n,
                    *_compared(families[tested.name], verdict),
                )


def _set(
    tested: TaskResults, task: TaskResults, families: list[Family], reference: str
) -> list[str]:
    verdicts = _verdicts(families)
    lines = []
    for name, model in tested.models.items():
        mark = f" {MARKS[verdicts[name].word]}" if name in verdicts else ""
        lines.append(
            [
                f"**{row_name(name)}**" if name == reference else row_name(name),
                *(
                    f"{values_text(model.values(metric))}{mark if metric == tested.primary else ''}"
                    for metric in tested.metrics
                ),
                values_text(task.models[name].values(task.primary)),
            ]
        )
    header = [
        "model",
        *(TITLES[metric] for metric in tested.metrics),
        f"{task.name}<br>{TITLES[task.primary]}",
    ]
    parts = [f"### {tested.name}\n\n{_description(tested)}", table(header, lines)]
    for family in families:
        summary = f"{tested.name}: <code>{family.reference}</code> against the others"
        parts.append(details(summary, comparison_table(family)))
    return parts


def _description(tested: TaskResults) -> str:
    card = tested.card
    left_out = (
        (card.duplicates.dropped, "left out because they were trained on"),
        (card.skipped, "left out by `columns.skip`"),
    )
    parts = [
        f"{len(tested.rows):,} rows for the models of {_trained(tested)}",
        plain_text(source_text(tested)),
        f"licence: {plain_text(card.license or 'not stated')}",
        *(f"{count:,} rows {why}" for count, why in left_out if count),
        f"SHA-256 `{card.sha256[:12]}`",
    ]
    return "; ".join(parts) + "."


def _trained(tested: TaskResults) -> str:
    return str(tested.card.tests)


def _verdicts(families: list[Family]) -> dict[str, Verdict]:
    """Of the reference: the first family, if there is one."""
    return {verdict.other: verdict for verdict in families[0].verdicts} if families else {}


def _compared(families: list[Family], verdict: Verdict | None) -> tuple[object, ...]:
    if verdict is None:
        return ("",) * 7
    comparison = verdict.comparison
    return (
        families[0].reference,
        comparison.difference,
        comparison.low,
        comparison.high,
        comparison.p,
        verdict.holm_p,
        verdict.word,
    )
