"""Stage `distill`: one method, a student per task and seed.

Runs train side by side, a process more than there are cores; finished ones stay in scratch,
so a change that touches one task or seed trains that one alone.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

from pipelines.params import Params
from pipelines.runs import folders
from pipelines.runs.inputs import training_task
from pipelines.runs.jobs import distilling
from pipelines.runs.training import public
from pipelines.runs.workers import count, pick_device, run_jobs
from pipelines.stages.command import run as run_stage
from pipelines.stages.item import run_item
from skd.files import write_files, write_folder
from skd.settings import plain

LOGS = Path("logs/distill")
COLUMNS = (
    "seed",
    "step",
    "loss",
    "kl",
    "acceptance_rate",
    "response_length",
    "tokens_per_second",
    "learning_rate",
    "grad_norm",
    "staleness",
    "seconds",
    "trained_tokens",
    "sampled_tokens",
    "teacher_tokens",
    "validation_loss",
    "validation_kl",
    "validation_metric",
)


def distill(params: Params, method: str) -> dict[str, Any]:
    """Fill models/students/<method>/<task>/<seed> and the logs; returns the runs' facts."""
    device = pick_device(params.runtime)
    settings = params.methods[method]
    tasks = [training_task(params, name) for name in params.experiment.tasks]
    wanted = [(task, seed) for task in tasks for seed in params.experiment.seeds]
    wanted.sort(key=lambda pair: -pair[0].budget.max_new_tokens)  # no long run is left for last
    jobs = [
        distilling(params, f"{task.name}-{method}-{seed}", task, settings, seed, device)
        for task, seed in wanted
    ]
    results = run_jobs(jobs, count(params.runtime, device, extra=1))
    runs: dict[str, dict[int, dict[str, Any]]] = {task.name: {} for task in tasks}
    for (task, seed), facts in zip(wanted, results, strict=True):
        runs[task.name][seed] = facts
    write_folder(folders.STUDENTS / method, lambda folder: _publish(folder, runs))
    write_files(LOGS / method, {f"{name}.csv": _log(seeds) for name, seeds in runs.items()})
    optimisation = params.distill.optimisation
    return {
        "method": plain(settings),
        "budget": {
            "steps": optimisation.steps,
            "batch_size": optimisation.batch_size,
            "prompts": optimisation.prompts,
        },
        "tasks": {
            name: {"seeds": {str(seed): public(facts) for seed, facts in seeds.items()}}
            for name, seeds in runs.items()
        },
    }


def _publish(folder: Path, runs: dict[str, dict[int, dict[str, Any]]]) -> None:
    for name, seeds in runs.items():
        for seed, facts in seeds.items():
            shutil.copytree(facts["folder"], folder / name / str(seed))
            shutil.copy(facts["log"], folder / name / str(seed) / "log.jsonl")


def _log(runs: dict[int, dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for seed, facts in runs.items():
        with Path(facts["log"]).open(encoding="utf-8") as lines:
            for line in lines:
                row = {"seed": seed, **json.loads(line)}
                writer.writerow({k: _short(row.get(k)) for k in COLUMNS})
    return text.getvalue()


def _short(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value


def main(argv: list[str] | None = None) -> None:
    run_item(argv, distill, __doc__, argument="method", section="methods", metrics="distill")


if __name__ == "__main__":
    run_stage(main)
