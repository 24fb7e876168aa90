"""What ran, from the result files: versions, devices, data, wall time per stage. Text only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from skd.report.compare import kind_of, start_of
from skd.report.metadata import licences
from skd.report.paper import METRICS, REPORTED
from skd.report.run import Json, Run, TaskRun
from skd.report.tables import NONE, TITLES, duration, plain_text, table, values_text


@dataclass(frozen=True)
class Provenance:
    """What the files cannot tell; the stage that writes the report finds it out."""

    revision: str  # git commit, or why there is none
    dirty: bool  # code or parameters differ from that commit
    parameters_hash: str
    command: str


def what_ran(run: Run, provenance: Provenance) -> str:
    state = ", with uncommitted changes in code or parameters" if provenance.dirty else ""
    rows = [
        ["git revision", f"`{provenance.revision}`{state}"],
        [
            "parameters",
            f"`{provenance.parameters_hash}` (SHA-256 of params.yaml without `runtime`)",
        ],
        ["seeds", ", ".join(map(str, run.seeds))],
        *([key, plain_text(value)] for key, value in _environment(run)),
        ["command", f"`{provenance.command}`"],
    ]
    return table(["what", "value"], rows, text_columns=2)


def _environment(run: Run) -> list[tuple[str, str]]:
    """One line per key; several values where stages ran on different machines or versions."""
    found: dict[str, dict[str, None]] = {}
    for environment in _environments(run):
        for key, value in environment.items():
            found.setdefault(key, {})[str(value)] = None
    return [(key, " / ".join(values)) for key, values in found.items()]


def _environments(run: Run) -> Iterable[Json]:
    yield run.base.get("environment", {})
    for task in run.tasks:
        yield task.sft.get("environment", {})
        for training in task.training.values():
            yield training.environment
        for facts in task.evaluation.values():
            yield facts.get("environment", {})


def wall_time(run: Run) -> str:
    """Seconds per stage as each stage measured them; stages may have run side by side."""
    header = ["stage", *(task.name for task in run.tasks), "total"]
    rows = [["base", *(NONE for _ in run.tasks), duration(run.base["seconds"])]]
    total = float(run.base["seconds"])
    stages = {
        "prepare": [float(task.card.get("seconds", 0)) for task in run.tasks],
        "sft": [float(task.sft["seconds"]) for task in run.tasks],
        "distill": [sum(t.seconds for t in task.training.values()) for task in run.tasks],
        "evaluate": [
            sum(float(facts["seconds"]) for facts in task.evaluation.values()) for task in run.tasks
        ],
    }
    for stage, seconds in stages.items():
        rows.append([stage, *map(duration, seconds), duration(sum(seconds))])
        total += sum(seconds)
    rows.append(["**all**", *("" for _ in run.tasks), f"**{duration(total)}**"])
    return table(header, rows)


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
