"""Stage `sft`: fine-tune, on every task, the teacher and one student per seed.

The teacher sees the whole training split; a student few rows of it, drawn by its seed, and
the same rows are what every distillation of that seed sees. Runs train side by side, one
process per core, the teachers' long ones first.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from pipelines.params import Params, load
from pipelines.runs.folders import BASE, SFT, TEACHER, start
from pipelines.runs.inputs import Task, training_task
from pipelines.runs.jobs import Job, tuning
from pipelines.runs.training import public
from pipelines.runs.workers import count, pick_device, run_jobs
from pipelines.stages.command import run as run_stage
from pipelines.stages.command import write_metrics
from skd.files import write_folder
from skd.training.settings import Optimisation


def sft(params: Params) -> dict[str, Any]:
    """Fill models/sft/<task>/{teacher,student-<seed>}; returns each task's runs' facts."""
    device = pick_device(params.runtime)
    tasks = [training_task(params, name) for name in params.experiment.tasks]
    wanted: list[tuple[Task, str, Optimisation]] = []
    if params.sft.teacher is not None:
        wanted += [(task, TEACHER, params.sft.teacher) for task in tasks]
    for seed in params.experiment.seeds:
        wanted += [(task, start(task.name, seed).name, params.sft.student) for task in tasks]

    def job(task: Task, model: str, optimisation: Optimisation) -> Job:
        role, _, number = model.partition("-")
        name, size = f"sft-{task.name}-{model}", task.budget.student_examples
        rows = None if role == TEACHER else size
        return tuning(params, name, task, BASE / role, optimisation, int(number or 0), rows, device)

    # One process more than cores: three teachers on two cores take 183 s instead of 232 s when
    # the third shares the cores instead of waiting for one to itself.
    workers = count(params.runtime, device, extra=1)
    results = run_jobs([job(*run) for run in wanted], workers)
    runs: dict[str, dict[str, dict[str, Any]]] = {task.name: {} for task in tasks}
    for (task, model, _), facts in zip(wanted, results, strict=True):
        runs[task.name][model] = facts
    write_folder(SFT, lambda folder: _publish(folder, runs))
    return {
        "tasks": {
            name: {"runs": {model: public(facts) for model, facts in models.items()}}
            for name, models in runs.items()
        }
    }


def _publish(folder: Path, runs: dict[str, dict[str, dict[str, Any]]]) -> None:
    for name, models in runs.items():
        for model, facts in models.items():
            shutil.copytree(facts["folder"], folder / name / model)
        if TEACHER not in models:  # it is already tuned
            shutil.copytree(BASE / TEACHER, folder / name / TEACHER)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.parse_args(argv)
    params = load()
    write_metrics("sft", pick_device(params.runtime), sft(params))


if __name__ == "__main__":
    run_stage(main)
