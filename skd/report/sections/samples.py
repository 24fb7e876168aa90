"""Outputs side by side: the first examples of the split, the same ones for every model."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from skd.data.record import ExampleRow
from skd.report.reading.experiment import SFT_START, TEACHER_ROW, ModelScores, TaskResults
from skd.report.sections.cells import NONE, TITLES, details, plain_text, row_name, table
from skd.report.verdicts.relations import baselines


def samples(task: TaskResults, reference: str, count: int) -> str:
    rows = task.rows[:count]
    models = [task.models[name] for name in shown_models(task, reference)]
    body = "\n\n".join(_sample(task, row, models) for row in rows)
    seed = next(iter(task.models[next(iter(task.training))].outputs))
    note = f"first {len(rows)} of the {models[0].split} split, students of seed {seed}"
    return details(f"{task.name}: {note}", body)


def shown_models(task: TaskResults, reference: str) -> list[str]:
    """Teacher, untrained student, the reference and the rivals worth reading beside it."""
    methods = list(task.training)
    shown = [TEACHER_ROW, SFT_START]
    if reference in methods:
        rivals = baselines(task, reference)
        shown.append(reference)
    else:
        rivals = methods
    if rivals:
        shown.append(max(rivals, key=lambda name: fmean(task.models[name].values(task.primary))))
    shown += [name for name in ("sft", f"{reference}_instruct") if name in methods]
    return list(dict.fromkeys(shown))


def _sample(task: TaskResults, row: ExampleRow, models: Sequence[ModelScores]) -> str:
    identity = str(row["id"])
    metrics = [metric for metric in (task.primary, "valid") if metric in task.metrics]
    references = row.get("references") or [row["target"]]
    more = f" (one of {len(references)})" if len(references) > 1 else ""
    empty = [NONE] * len(metrics)
    lines = [
        ["source", plain_text(row["source"]), *empty],
        [f"reference{more}", plain_text(row["target"]), *empty],
    ]
    for model in models:
        record = next(iter(model.outputs.values()))[identity]
        scores = [_score(record.scores.get(metric)) for metric in metrics]
        lines.append([row_name(model.name), plain_text(record.output), *scores])
    header = [f"`{identity}`", "text", *(TITLES[metric].rstrip(" %") for metric in metrics)]
    return table(header, lines, text_columns=2)


def _score(value: float | None) -> str:
    return NONE if value is None else f"{value:.0f}"
