"""Sweeps: a method at each value of one setting, on the validation split: the tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from statistics import fmean
from typing import Any

from skd.report.reading.analyses import Analyses
from skd.report.sections.cells import (
    LEGEND,
    NONE,
    TITLES,
    number,
    plain_text,
    range_text,
    sign,
    table,
    values_text,
)
from skd.report.verdicts.sweeps import sweep_verdicts
from skd.report.verdicts.tables import Verdict
from skd.results.analyses import SweepRuns
from skd.results.runs import TrainedRun
from skd.tasks import TASKS

# Title -> what is read of a run, and its digits
_COLUMNS: dict[str, tuple[Callable[[TrainedRun], float | None], int]] = {
    "KL to the teacher": (lambda run: run.validation.kl, 3),
    "accepted %": (lambda run: run.acceptance_rate, 1),
    "sampled tokens": (lambda run: run.student_sampled_tokens, 0),
    "teacher passes": (lambda run: run.teacher_passes, 0),
    "teacher tokens": (lambda run: run.teacher_tokens, 0),
    "seconds": (lambda run: run.cost.seconds, 1),
}
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


def section(name: str, sweep: SweepRuns, margin: float) -> str:
    """margin: points within which two values count as equal."""
    seeds = ", ".join(map(str, sweep.seeds))
    noun = "Seed" if len(sweep.seeds) == 1 else "Seeds"
    parts = [
        f"## Sweep `{name}`: `{sweep.setting}` of `{sweep.method}`\n\n{noun} {seeds}; "
        f"{sweep.validation_examples or 'all'} validation examples."
    ]
    verdicts = sweep_verdicts(sweep, margin)
    if verdicts:
        parts[0] += (
            " *Against the first*: the interval of the difference that all values of a table hold "
            f"at once, for these examples alone: {LEGEND}."
        )
    for task, values in sweep.runs.items():
        header = [f"{task}: {sweep.setting}", TITLES[TASKS[sweep.kinds[task]].primary]]
        rows = [
            [plain_text(value), values_text([run.validation.metric for run in runs.values()])]
            for value, runs in values.items()
        ]
        if verdicts:
            header.append("against the first")
            for row, shown in zip(
                rows, [NONE, *map(_against, verdicts[task].verdicts)], strict=True
            ):
                row.append(shown)
        for row, runs in zip(rows, values.values(), strict=True):
            row += _cells([*runs.values()])
        parts.append(table([*header, *_COLUMNS], rows))
    return "\n\n".join(parts)


def _against(verdict: Verdict) -> str:
    """How another value stands to the first. verdict: of the first against it."""
    return range_text(verdict.mirrored()) + sign(verdict)


def _cells(runs: Sequence[TrainedRun]) -> Iterable[str]:
    for read, digits in _COLUMNS.values():
        known = [value for run in runs if (value := read(run)) is not None]
        yield number(fmean(known) if known else None, digits)


def sweep_rows(analyses: Analyses) -> Iterable[tuple[Any, ...]]:
    """One row per run, as `SWEEP_COLUMNS`."""
    for name, sweep in analyses.sweeps.items():
        for task, values in sweep.runs.items():
            for value, runs in values.items():
                for seed, run in runs.items():
                    numbers = [read(run) for read, _ in _COLUMNS.values()]
                    metric = run.validation.metric
                    yield name, task, sweep.setting, value, seed, metric, *numbers
