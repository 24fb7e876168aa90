"""Stage `distill`: one method, a student per task and seed.

Runs train side by side. Finished ones stay in scratch, so a change that touches one task or seed
trains that one alone.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pipelines.parameters import At
from pipelines.runs import folders
from pipelines.runs.engines import run_jobs
from pipelines.runs.inputs import training_data
from pipelines.runs.jobs import Finished
from pipelines.runs.machine import Machine
from pipelines.runs.progress import LOG
from pipelines.runs.specs import distilling
from pipelines.runs.training import MODEL
from pipelines.settings.runtime import Runtime
from pipelines.stages.command import item_parameters, run_command, took, write_metrics
from skd.files import write_files, write_folder
from skd.models.settings import Budget
from skd.results.files import write_result
from skd.results.logs import LogRow, log_row, log_text
from skd.results.runs import DistillResult, RunBudget, TrainedRun, ValidationScores
from skd.settings import Name, Names, SomeSeeds
from skd.training.settings import Distill, MethodSettings

LOGS = Path("logs/distill")
Runs = Mapping[str, Mapping[int, Finished[TrainedRun]]]  # task -> seed -> run


@dataclass(frozen=True)
class Parameters:
    tasks: Annotated[Names, At("experiment.tasks")]
    seeds: Annotated[SomeSeeds, At("experiment.seeds")]
    budget: dict[Name, Budget]
    distill: Distill
    method: Annotated[MethodSettings, At("methods.{item}")]
    decoding_batch: Annotated[int, At("evaluate.batch_size")]
    runtime: Runtime


def distill(parameters: Parameters, method: str) -> DistillResult:
    """Fill models/students/METHOD/TASK/SEED and the logs; returns what the runs say.

    method: the name of the row.
    """
    machine = Machine.of(parameters.runtime, parameters.decoding_batch)
    tasks = {name: training_data(name, parameters.budget[name]) for name in parameters.tasks}
    wanted = [(task, seed) for task in tasks.values() for seed in parameters.seeds]
    # A long run should not be left for last.
    wanted.sort(key=lambda pair: -pair[0].budget.max_new_tokens)
    specs = [
        distilling(
            f"{task.name}-{method}-{seed}", task, parameters.method, parameters.distill, seed
        )
        for task, seed in wanted
    ]
    runs: dict[str, dict[int, Finished[TrainedRun]]] = {name: {} for name in tasks}
    for (task, seed), run in zip(wanted, run_jobs(specs, machine, extra=1), strict=True):
        runs[task.name][seed] = run
    write_folder(folders.STUDENTS / method, lambda folder: _publish(folder, runs))
    write_files(
        LOGS / method, {f"{task}.csv": log_text(log_rows(seeds)) for task, seeds in runs.items()}
    )
    optimisation = parameters.distill.optimisation
    return DistillResult(
        took=took(machine.device),
        method=parameters.method,
        budget=RunBudget(optimisation.steps, optimisation.batch_size, optimisation.prompts),
        tasks={
            task: {str(seed): run.result for seed, run in seeds.items()}
            for task, seeds in runs.items()
        },
    )


def _publish(folder: Path, runs: Runs) -> None:
    """The students, and beside each what chose its weights. Nothing here differs between reruns."""
    for task, seeds in runs.items():
        for seed, run in seeds.items():
            shutil.copytree(run.folder / MODEL, folder / task / str(seed))
        scores = {str(seed): run.result.validation.metric for seed, run in seeds.items()}
        write_result(folder / task / "validation.json", ValidationScores(scores))


def log_rows(runs: Mapping[int, Finished[TrainedRun]]) -> Iterator[LogRow]:
    """The runs' logs, one after the other."""
    for seed, run in runs.items():
        with (run.folder / LOG).open(encoding="utf-8") as lines:
            for line in lines:
                yield log_row(seed, json.loads(line))


def main(argv: list[str] | None = None) -> None:
    method, parameters = item_parameters(
        Parameters, __doc__, argv, item="method", section="methods"
    )
    write_metrics(f"distill/{method}", distill(parameters, method))


if __name__ == "__main__":
    run_command(main)
