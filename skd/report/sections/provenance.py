"""What ran, from the result files: versions, devices, data, the pair of models. Text only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from skd.data.settings import Files, Hub
from skd.report.reading.experiment import ExperimentResults, TaskResults
from skd.report.reading.parts import Part, environments
from skd.report.sections.cells import (
    NONE,
    TITLES,
    duration,
    number,
    plain_text,
    table,
    values_text,
)
from skd.report.sections.metadata import licences
from skd.report.sections.paper import METRICS, REPORTED
from skd.report.verdicts.relations import row_of


@dataclass(frozen=True)
class Provenance:
    """What the files cannot tell; the stage that writes the report finds it out."""

    revision: str  # git commit, or why there is none
    dirty: bool  # the code differs from that commit's
    parameters_hash: str
    command: str


def wall_time(parts: Sequence[Part]) -> str:
    """A row per stage, the longest first, and their sum."""
    seconds: dict[str, list[float]] = {}
    for part in parts:
        seconds.setdefault(part.stage, []).append(part.took.seconds)
    whole = sum(part.took.seconds for part in parts)
    rows = [
        [stage, number(len(taken)), duration(sum(taken)), number(100 * sum(taken) / whole, 1)]
        for stage, taken in sorted(seconds.items(), key=lambda item: -sum(item[1]))
    ]
    rows.append(["**all**", number(len(parts)), f"**{duration(whole)}**", ""])
    return table(["stage", "parts", "time", "%"], rows)


def what_ran(results: ExperimentResults, parts: Sequence[Part], provenance: Provenance) -> str:
    state = ", with uncommitted changes in code" if provenance.dirty else ""
    rows = [
        ["git revision", f"`{provenance.revision}`{state}"],
        [
            "parameters",
            f"`{provenance.parameters_hash}` (SHA-256 of params.yaml without `runtime`)",
        ],
        ["seeds", ", ".join(map(str, results.seeds))],
        *([key, plain_text(value)] for key, value in environments(parts)),
        ["command", f"`{provenance.command}`"],
    ]
    return table(["what", "value"], rows, text_columns=2)


def data_table(results: ExperimentResults) -> str:
    header = ["task", "kind", "source", "licence", "train", "validation", "test", "SHA-256"]
    rows = []
    for task in results.tasks:
        splits = task.card.splits
        sizes = [f"{splits[name].rows:,}" if name in splits else NONE for name in header[4:7]]
        rows.append(
            [
                task.name,
                task.kind,
                plain_text(source_text(task)),
                plain_text(licences(results, task)["data"]),
                *sizes,
                f"`{task.card.sha256[:12]}`",
            ]
        )
    return table(header, rows, text_columns=4)


def source_text(task: TaskResults) -> str:
    """`hub google/flores at 0123abc`, `files train.jsonl`, `procedural`."""
    source = task.card.source
    words: list[str] = [source.kind]
    if isinstance(source, Files):
        words += [name for name in (source.train or source.test,) if name]
    elif isinstance(source, Hub):
        words += [source.id or str(source.preset), "at", source.revision[:12]]
    return " ".join(words)


def pair_table(results: ExperimentResults) -> str:
    """Teacher and student side by side; what they share stands in both columns.

    Across two tokenizers they share none of it, and it is the student's.
    """
    pair = results.pair
    teacher, student = (
        vars(model.origin) | vars(model.size) for model in (pair.teacher, pair.student)
    )
    shared = {"vocabulary": pair.vocabulary, "eos": pair.eos, "chat_template": pair.chat_template}
    rows = [[name, _cell(teacher[name]), _cell(student[name])] for name in teacher]
    of_teacher = {name: None if pair.cross_tokenizer else value for name, value in shared.items()}
    rows += [[name, _cell(of_teacher[name]), _cell(value)] for name, value in shared.items()]
    return table(["", "teacher", "student"], rows)


def _cell(value: object) -> str:
    if value is None:
        return NONE
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return plain_text(str(value))


def paper_table(results: ExperimentResults) -> str:
    """This run beside the figures that the paper reports on other models and data."""
    header = ["method"]
    for task in results.tasks:
        header.append(f"{task.name}, ours<br>{TITLES[task.primary]}")
        header.append(f"{task.name}, reported<br>{METRICS[task.kind]}")
    rows = []
    for kind, reported in REPORTED.items():
        cells = []
        for task in results.tasks:
            method = row_of(task, kind)
            ours = values_text(task.models[method].values(task.primary)) if method else NONE
            cells += [ours, f"*{' / '.join(map(str, reported[task.kind]))}*"]
        rows.append([f"`{kind}`", *cells])
    return table(header, rows)
