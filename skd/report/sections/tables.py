"""The tables of the main page: scores with verdicts, and all tasks together. Computes no test."""

from __future__ import annotations

from skd.report.reading.experiment import STARTS, ExperimentResults, TaskResults
from skd.report.sections.cells import (
    NONE,
    TITLES,
    estimate_text,
    number,
    row_name,
    sign,
    table,
    values_text,
)
from skd.report.verdicts.choice import seconds_of
from skd.report.verdicts.evidence import Evidence
from skd.report.verdicts.tables import VerdictTable


def main_table(results: ExperimentResults, evidence: Evidence) -> str:
    """Models × tasks: the primary metric, the share of valid outputs, the seconds of training.

    The starts first, then the methods, the one first that closes most of the teacher's lead.
    """
    columns = [
        (task, verdicts)
        for task in results.tasks
        for verdicts in evidence.tables[task.name].values()
    ]
    header = ["model", *(f"{task.name}<br>{TITLES[v.metric]}" for task, v in columns)]
    rows = [
        [
            f"**{row_name(name)}**" if name == evidence.reference else row_name(name),
            *(_cell(task, name, verdicts) for task, verdicts in columns),
            _seconds(results, name),
        ]
        for name in (*STARTS, *(row.method for row in evidence.overall))
    ]
    if evidence.possible:
        leads = [number(verdicts.smallest_lead, 1) for _, verdicts in columns]
        rows.append(["*smallest lead seen*", *leads, ""])
    return table([*header, "seconds"], rows)


def _cell(task: TaskResults, name: str, verdicts: VerdictTable) -> str:
    text = values_text(task.models[name].values(verdicts.metric))
    known = verdicts.against_reference
    return text + (sign(known[name]) if name in known else "")


def _seconds(results: ExperimentResults, name: str) -> str:
    """Of one student on each task, together."""
    if name in STARTS:
        return NONE
    return number(sum(seconds_of(task, name) for task in results.tasks), 0)


def overall_table(results: ExperimentResults, evidence: Evidence) -> str:
    """Methods over all tasks; see `skd.report.verdicts.overall`."""
    reference = evidence.reference
    known = reference in results.methods
    header = ["method", "lead closed %", *(task.name for task in results.tasks)]
    header += [f"a run of `{reference}` beats one of it, %"] if known else []
    rows = []
    for row in evidence.overall:
        closed, beaten = row.closed, row.beaten
        shown = row_name(row.method)
        cells = [f"**{shown}**" if row.method == reference else shown]
        if closed is None:
            cells += [NONE] * (1 + len(results.tasks))
        else:
            cells += [estimate_text(closed), *(number(share) for share in closed.by_task)]
        if known:
            cells.append(number(beaten, 0))
        rows.append(cells)
    return table(header, rows)


def metric_table(task: TaskResults) -> str:
    header = ["model", *(TITLES[metric] for metric in task.metrics)]
    rows = [
        [row_name(name), *(values_text(model.values(metric)) for metric in task.metrics)]
        for name, model in task.models.items()
    ]
    return table(header, rows)
