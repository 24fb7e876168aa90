"""The analyses beside the main comparison, as their stages wrote them. Computes nothing.

All but the equal budgets are of the validation split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from skd.results.analyses import (
    FairnessResult,
    ProbeResult,
    ScalingResult,
    SweepResult,
    SweepRuns,
)
from skd.results.evaluation import OutputRecord
from skd.results.files import read_result, read_results, stale


@dataclass(frozen=True)
class Analyses:
    # By name
    sweeps: Mapping[str, SweepRuns]
    fairness: FairnessResult
    # Task -> the outputs behind the equal budgets
    budget_outputs: Mapping[str, Sequence[OutputRecord]]
    # By name
    students: Mapping[str, ScalingResult]
    probe: ProbeResult


def read_analyses(root: Path, sweeps: Sequence[str], students: Sequence[str]) -> Analyses:
    """Raises `UserError` naming the file and the stage where one is missing."""
    metrics = root / "metrics"
    fairness = read_result(metrics / "fairness.json", FairnessResult, "fairness")
    return Analyses(
        sweeps=_sweeps(metrics / "sweep.json", sweeps),
        fairness=fairness,
        budget_outputs={
            task: read_results(root / "fairness" / f"{task}.jsonl", OutputRecord, "fairness")
            for task in fairness.tasks
        },
        students={
            name: read_result(
                metrics / "scaling" / f"{name}.json", ScalingResult, f"scaling@{name}"
            )
            for name in students
        },
        probe=read_result(metrics / "probe.json", ProbeResult, "probe"),
    )


def _sweeps(path: Path, names: Sequence[str]) -> dict[str, SweepRuns]:
    sweeps = read_result(path, SweepResult, "sweep").sweeps
    if missing := [name for name in names if name not in sweeps]:
        raise stale(path, f"no sweep {missing[0]!r}", "sweep")
    return {name: sweeps[name] for name in names}
