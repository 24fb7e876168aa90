"""`details/test-sets.md`: the tasks' models on data of which nothing trained them.

Tables and verdicts are made as for a task; a set has no training, cost or curve of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from skd.report.reading.experiment import ExperimentResults, TaskResults
from skd.report.sections.cells import (
    LEGEND,
    TITLES,
    plain_text,
    row_name,
    sign,
    table,
    values_text,
)
from skd.report.sections.comparisons import comparison_details
from skd.report.sections.provenance import source_text
from skd.report.verdicts.evidence import Evidence
from skd.report.verdicts.statistics import seed_interval
from skd.report.verdicts.tables import Verdict

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
    "verdict",
)


def page(results: ExperimentResults, evidence: Evidence) -> str:
    """Empty where no set was tested."""
    if not results.test_sets:
        return ""
    reference = evidence.reference
    marks = f" Against `{reference}`, by the same tests as on the tasks, corrected within each set:"
    parts = [
        "# Other test sets\n\nThe same models on sets that no model was trained or chosen on. "
        "The last column repeats the task's own test split."
        + (f"{marks} {LEGEND}." if evidence.planned else "")
    ]
    own = {task.name: task for task in results.tasks}
    for tested in results.test_sets:
        parts += _set(tested, own[_trained(tested)], evidence)
    return "\n\n".join(parts)


def rows(results: ExperimentResults, evidence: Evidence) -> Iterable[Sequence[object]]:
    """For the CSV: every metric of every model, with its comparison where there is one."""
    for tested in results.test_sets:
        for name, model in tested.models.items():
            for metric in tested.metrics:
                if values := model.values(metric):
                    interval = seed_interval(values)
                    verdict = _verdict(evidence, tested, metric, name)
                    yield (
                        tested.name, _trained(tested), name, metric, interval.mean,
                        interval.half_width, interval.n, *_compared(verdict),
                    )  # fmt: skip


def _set(tested: TaskResults, task: TaskResults, evidence: Evidence) -> list[str]:
    lines = []
    for name, model in tested.models.items():
        cells = [f"**{row_name(name)}**" if name == evidence.reference else row_name(name)]
        for metric in tested.metrics:
            verdict = _verdict(evidence, tested, metric, name)
            mark = "" if verdict is None else sign(verdict)
            cells.append(values_text(model.values(metric)) + mark)
        lines.append([*cells, values_text(task.models[name].values(task.primary))])
    header = [
        "model",
        *(TITLES[metric] for metric in tested.metrics),
        f"{task.name}<br>{TITLES[task.primary]}",
    ]
    return [
        f"## {tested.name}\n\n{_description(tested)}",
        table(header, lines),
        *(
            comparison_details(tested.name, verdicts.metric, against)
            for verdicts in evidence.tables[tested.name].values()
            for against in verdicts.planned
        ),
    ]


def _description(tested: TaskResults) -> str:
    card = tested.card
    left_out = (
        (card.duplicates.dropped, "left out because models were trained or chosen on them"),
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


def _verdict(evidence: Evidence, tested: TaskResults, metric: str, method: str) -> Verdict | None:
    """Of the reference against that method; None where the two are not compared."""
    verdicts = evidence.tables[tested.name].get(metric)
    return None if verdicts is None else verdicts.against_reference.get(method)


def _compared(verdict: Verdict | None) -> tuple[object, ...]:
    if verdict is None or not verdict.possible:
        return ("",) * 6
    made = verdict.comparison
    return made.method, made.difference, made.low, made.high, made.p, verdict.word.value
