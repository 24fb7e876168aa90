"""The analyses beside the main comparison: sweeps of one setting, and the probe.

Reads metrics/sweeps/*.json and metrics/probe.json. All on the validation split.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from skd.report.read import read_json
from skd.report.run import Json
from skd.report.tables import TITLES, details, number, row_name, table, values_text
from skd.tasks import TASKS

GROUND_TRUTH, STUDENT, INTERLEAVED = "ground_truth", "student", "interleaved"


@dataclass(frozen=True)
class Analyses:
    sweeps: dict[str, Json]  # by name
    probe: Json


def read_analyses(root: Path, sweeps: Sequence[str]) -> Analyses:
    """Raises `UserError` naming the file and the stage where one is missing."""
    return Analyses(
        {
            name: read_json(root / "metrics" / "sweeps" / f"{name}.json", f"sweep@{name}")
            for name in sweeps
        },
        read_json(root / "metrics" / "probe.json", "probe"),
    )


def section(found: Analyses) -> str:
    parts = ["## Analyses\n\nOn the validation split; nothing here chose a setting of the results."]
    parts += [_sweep(name, facts) for name, facts in found.sweeps.items()]
    return "\n\n".join([*parts, _agreement(found.probe), _drafts(found.probe)])


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
    parts = [
        f"### Sweep `{name}`: `{facts['setting']}` of `{facts['method']}`\n\nSeeds {seeds}; "
        f"{facts['validation_examples']} validation examples."
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


# ----------------------------------------------------------------------- probe
def _agreement(probe: Json) -> str:
    parts = [
        f"### Agreement with the teacher\n\nSeed {probe['seed']}. Prefixes from the ground truth, "
        "from the student's own samples, and from interleaved sampling with "
        f"K = {probe['k']}. *KL*: teacher ‖ student, nats per token. *Spearman*: over the "
        "teacher's 20 most likely tokens. *Rank*: the teacher's rank of the student's own "
        "tokens (0: its most likely). *KL along*: by place in the student's own response."
    ]
    for task, models in probe["tasks"].items():
        rows = [[row_name(name), *_agreement_cells(facts)] for name, facts in models.items()]
        parts.append(details(task, table(["model", *_AGREEMENT], rows)))
    return "\n\n".join(parts)


_AGREEMENT = (
    "KL, ground truth",
    "KL, student",
    "KL, interleaved",
    "Spearman, student",
    "same first %, student",
    "rank 50 / 90 / 99 %",
    "KL along",
)


def _agreement_cells(facts: Json) -> Iterable[str]:
    found = facts["agreement"]
    for kind in (GROUND_TRUTH, STUDENT, INTERLEAVED):
        yield f"{found[kind]['kl']:.2f}"
    own = found[STUDENT]
    yield f"{own['spearman']:.2f}"
    yield f"{own['first']:.0f}"
    yield " / ".join(f"{value:.0f}" for value in own["ranks"].values())
    yield " · ".join(f"{start}+: {kl:.2f}" for start, (kl, _) in own["by_position"].items())


def _drafts(probe: Json) -> str:
    parts = [
        "### The student as a draft for its teacher\n\nSpeculative decoding, one prompt at a time. "
        "*Tokens per pass*: emitted per teacher pass; plain decoding has 1. Speeds are tokens per "
        "CPU second, both ways in one process. Greedy outputs were compared with the teacher's own "
        "and were equal; sampled ones share the teacher's noise. *Rejection* is the standard rule."
    ]
    header = [
        "model",
        *(f"{name}: {what}" for name in _DECODERS for what in ("accepted %", "tokens per pass")),
        "greedy ÷ plain speed",
    ]
    for task, models in probe["tasks"].items():
        rows = [[row_name(name), *_draft_cells(facts["draft"])] for name, facts in models.items()]
        parts.append(details(task, table(header, rows)))
    return "\n\n".join(parts)


_DECODERS = ("greedy", "sampled", "rejection")


def _draft_cells(draft: Json) -> Iterable[str]:
    for name in _DECODERS:
        yield f"{draft[name]['accepted']:.0f}"
        yield f"{draft[name]['acceptance_length']:.2f}"
    speed = draft["greedy"]["tokens_per_cpu_second"] / draft["plain_tokens_per_cpu_second"]
    yield f"{speed:.2f}"
