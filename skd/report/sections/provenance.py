"""What ran, from the result files: versions, devices, data, the pair of models. Text only."""

from __future__ import annotations

from dataclasses import dataclass

from skd.report.reading.run import Run, TaskRun
from skd.report.reading.stages import Part, environment
from skd.report.sections.metadata import licences
from skd.report.sections.paper import METRICS, REPORTED
from skd.report.sections.tables import NONE, TITLES, plain_text, table, values_text
from skd.report.verdicts.compare import kind_of, start_of


@dataclass(frozen=True)
class Provenance:
    """What the files cannot tell; the stage that writes the report finds it out."""

    revision: str  # git commit, or why there is none
    dirty: bool  # code or parameters differ from that commit
    parameters_hash: str
    command: str


def what_ran(run: Run, parts: list[Part], provenance: Provenance) -> str:
    state = ", with uncommitted changes in code or parameters" if provenance.dirty else ""
    rows = [
        ["git revision", f"`{provenance.revision}`{state}"],
        [
            "parameters",
            f"`{provenance.parameters_hash}` (SHA-256 of params.yaml without `runtime`)",
        ],
        ["seeds", ", ".join(map(str, run.seeds))],
        *([key, plain_text(value)] for key, value in environment(parts)),
        ["command", f"`{provenance.command}`"],
    ]
    return table(["what", "value"], rows, text_columns=2)


def data_table(run: Run) -> str:
    header = ["task", "kind", "source", "licence", "train", "validation", "test", "SHA-256"]
    rows = []
    for task in run.tasks:
        splits = task.card["splits"]
        sizes = [f"{splits[s]['rows']:,}" if s in splits else NONE for s in header[4:7]]
        rows.append(
            [
                task.name,
                task.kind,
                plain_text(source_text(task)),
                plain_text(licences(run, task)["data"]),
                *sizes,
                f"`{str(task.card.get('sha256', ''))[:12]}`",
            ]
        )
    return table(header, rows, text_columns=4)


def source_text(task: TaskRun) -> str:
    """`hub google/flores at 0123abc`, `files train.jsonl`, `procedural`."""
    source = task.card.get("source") or {}
    kinds = ("id", "preset", "train", "test")
    name = next((source[kind] for kind in kinds if source.get(kind)), "")
    revision = source.get("revision")
    return " ".join(
        part
        for part in (source.get("kind", ""), name, f"at {revision[:12]}" if revision else "")
        if part
    )


def pair_table(run: Run) -> str:
    """Facts of teacher and student side by side; facts of the pair in both columns."""
    pair = run.base.get("pair", {})
    teacher, student = pair.get("teacher"), pair.get("student")
    if isinstance(teacher, dict) and isinstance(student, dict):
        keys = dict.fromkeys([*teacher, *student])
        rows = [[key, _fact(teacher.get(key)), _fact(student.get(key))] for key in keys]
        shared = {key: value for key, value in pair.items() if not isinstance(value, dict)}
        rows += [[key, _fact(value), _fact(value)] for key, value in shared.items()]
        return table(["", "teacher", "student"], rows)
    return table(["fact", "value"], [[key, _fact(value)] for key, value in pair.items()])


def _fact(value: object) -> str:
    if value is None:
        return NONE
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return plain_text(str(value))


def paper_table(run: Run) -> str:
    """This run beside the figures that the paper reports on other models and data."""
    header = ["method"]
    for task in run.tasks:
        header.append(f"{task.name}, ours<br>{TITLES[task.primary]}")
        header.append(f"{task.name}, reported<br>{METRICS[task.kind]}")
    rows = []
    for kind, reported in REPORTED.items():
        cells = []
        for task in run.tasks:
            method = _row_of(task, kind)
            ours = values_text(task.models[method].values(task.primary)) if method else NONE
            cells += [ours, f"*{' / '.join(map(str, reported[task.kind]))}*"]
        rows.append([f"`{kind}`", *cells])
    return table(header, rows)


def _row_of(task: TaskRun, kind: str) -> str | None:
    """The run's first row of that algorithm from the SFT start."""
    found = (m for m in task.training if kind_of(task, m) == kind and start_of(task, m) == "sft")
    return next(found, None)
