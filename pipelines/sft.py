"""Stage `sft`: fine-tune the teacher on a task, and one student per seed on its few rows.

The teacher sees the whole training split; a student's subset is drawn by its seed, and the
same subset is what every distillation of that seed sees.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.inputs import training_task
from pipelines.stage import run as run_stage
from pipelines.stage import write_metrics
from pipelines.training import Spec, public, subset, train_run
from pipelines.workers import count, pick_device, run_jobs
from skd.config import Distill, MethodSettings, Optimisation, Params, load
from skd.files import write_folder

OUT = Path("models/sft")
BASE = Path("models/base")


def sft(params: Params, name: str) -> dict[str, Any]:
    """Fill models/sft/<task>/{teacher,student-<seed>}; returns the runs' facts."""
    task = training_task(params, name)
    device = pick_device(params.runtime)

    def job(
        role: str, optimisation: Optimisation, seed: int, size: int | None
    ) -> Callable[[int], dict[str, Any]]:
        spec = Spec(
            name=f"sft-{name}-{role}-{seed}",
            settings=MethodSettings(method="sft"),
            distill=Distill(optimisation=optimisation),
            start=BASE / role,
            teacher=None,
            seed=seed,
        )
        return lambda line: train_run(
            params, spec, task, subset(task.train, size, seed), device, line
        )

    seeds = params.experiment.seeds
    examples = task.budget.student_examples
    jobs = [job("student", params.sft.student, seed, examples) for seed in seeds]
    students = dict(zip(seeds, run_jobs(jobs, count(params.runtime, device)), strict=True))
    teacher = None
    if params.sft.teacher is not None:  # one long run: alone, with every core
        (teacher,) = run_jobs([job("teacher", params.sft.teacher, 0, None)], 1)
    write_folder(OUT / name, lambda folder: _publish(folder, teacher, students))
    return {
        "teacher": public(teacher) if teacher else None,
        "students": {str(seed): public(facts) for seed, facts in students.items()},
    }


def _publish(
    folder: Path, teacher: dict[str, Any] | None, students: dict[int, dict[str, Any]]
) -> None:
    shutil.copytree(teacher["folder"] if teacher else BASE / "teacher", folder / "teacher")
    for seed, facts in students.items():
        shutil.copytree(facts["folder"], folder / f"student-{seed}")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", help="a row of `data` in params.yaml")
    arguments = parser.parse_args(argv)
    params = load()
    facts = sft(params, arguments.task)
    write_metrics(f"sft/{arguments.task}", pick_device(params.runtime), facts)


if __name__ == "__main__":
    run_stage(main)
