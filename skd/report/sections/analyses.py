"""The analyses beside the main comparison, read together and put in order; sweeps in full.

All but the equal budgets on the validation split.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from skd.report.reading.read import read_json, stale
from skd.report.reading.run import Json, Run
from skd.report.sections import fairness, scaling
from skd.report.sections.fairness import Fairness, read_fairness
from skd.report.sections.probe import agreement, course, drafts
from skd.report.sections.tables import TITLES, number, table, values_text
from skd.tasks import TASKS


@dataclass(frozen=True)
class Analyses:
    sweeps: dict[str, Json]  # by name
    fairness: Fairness
    students: dict[str, Json]  # by name
    probe: Json


def read_analyses(
    root: Path,
    sweeps: Sequence[str],
    students: Sequence[str],
    reference: str,
    resamples: int,
    seed: int,
) -> Analyses:
    """Raises `UserError` naming the file and the stage where one is missing."""
    metrics = root / "metrics"
    return Analyses(
        _read_sweeps(metrics / "sweep.json", sweeps),
        read_fairness(root, reference, resamples, seed),
        {
            name: read_json(metrics / "scaling" / f"{name}.json", f"scaling@{name}")
            for name in students
        },
        read_json(metrics / "probe.json", "probe"),
    )


def _read_sweeps(path: Path, names: Sequence[str]) -> dict[str, Json]:
    found = read_json(path, "sweep")["sweeps"]
    if missing := [name for name in names if name not in found]:
        raise stale(path, f"no sweep {missing[0]!r}", "sweep")
    return {name: found[name] for name in names}


def section(found: Analyses, run: Run) -> str:
    parts = [
        "## Analyses\n\nOn the validation split where nothing else is said; nothing here chose a "
        "setting of the results above.",
        fairness.section(found.fairness),
        *(_sweep(name, facts) for name, facts in found.sweeps.items()),
        scaling.section(found.students, run),
        agreement(found.probe),
        course(run),
        drafts(found.probe),
    ]
    return "\n\n".join(part for part in parts if part)


# ---------------------------------------------------------------------- sweeps
# column: (key or function of a run's facts, digits)
_COLUMNS: dict[str, tuple[Callable[[Json], float | None], int]] = {
    "KL to the teacher": (lambda run: run["validation"].get("kl"), 3),
    "accepted %": (lambda run: run["acceptance_rate"], 1),
    "sampled tokens": (lambda run: run["student_sampled_tokens"], 0),
    "teacher passes": (lambda run: run["teacher_passes"], 0),
    "teacher tokens": (lambda run: run["teacher_tokens"], 0),
    "seconds": (lambda run: run["seconds"], 1),
}


def _sweep(name: str, facts: Json) -> str:
    seeds = ", ".join(map(str, facts["seeds"]))
    noun = "Seed" if len(facts["seeds"]) == 1 else "Seeds"
    parts = [
        f"### Sweep `{name}`: `{facts['setting']}` of `{facts['method']}`\n\n{noun} {seeds}; "
        f"{facts['validation_examples'] or 'all'} validation examples."
    ]
    for task, values in facts["runs"].items():
        title = TITLES[TASKS[facts["kinds"][task]].primary]
        rows = [[value, *_sweep_cells(list(runs.values()))] for value, runs in values.items()]
        header = [f"{task}: {facts['setting']}", title, *_COLUMNS]
        parts.append(table(header, rows))
    return "\n\n".join(parts)


def _sweep_cells(runs: list[Json]) -> Iterable[str]:
    yield values_text([run["validation"]["metric"] for run in runs])
    for read, digits in _COLUMNS.values():
        known = [value for run in runs if (value := read(run)) is not None]
        yield number(fmean(known) if known else None, digits)


def sweep_rows(found: Analyses) -> Iterable[tuple[Any, ...]]:
    """One row per run: sweep, task, setting, value, seed, metric, then `SWEEP_KEYS`."""
    for name, facts in found.sweeps.items():
        for task, values in facts["runs"].items():
            for value, runs in values.items():
                for seed, run in runs.items():
                    numbers = [read(run) for read, _ in _COLUMNS.values()]
                    metric = run["validation"]["metric"]
                    yield name, task, facts["setting"], value, seed, metric, *numbers


SWEEP_COLUMNS = (
    "sweep",
    "task",
    "setting",
    "value",
    "seed",
    "metric",
    "kl",
    "acceptance_rate",
    "student_sampled_tokens",
    "teacher_passes",
    "teacher_tokens",
    "seconds",
)
