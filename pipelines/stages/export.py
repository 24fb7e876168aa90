"""Stage `export`: per task, the student that did best on validation, with its model card.

models/best/TASK is a folder that `transformers` loads. The choice reads the validation scores that
training wrote beside the students; test splits have no part in it. Of equals the earlier method and
the earlier seed are chosen.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from pipelines.runs import folders
from pipelines.settings.experiment import Experiment
from pipelines.stages.command import run_command, stage_parameters
from skd.files import write_folder, write_json
from skd.results.files import read_result
from skd.results.runs import ValidationScores


@dataclass(frozen=True)
class Parameters:
    experiment: Experiment


@dataclass(frozen=True)
class ValidatedStudent:
    method: str
    seed: int
    # Primary metric on the validation rows that training used, percent
    score: float


def validated_students(experiment: Experiment, task: str) -> list[ValidatedStudent]:
    students = []
    for method in experiment.methods:
        path = folders.STUDENTS / method / task / "validation.json"
        scores = read_result(path, ValidationScores, f"distill@{method}").seeds
        students += [ValidatedStudent(method, seed, scores[str(seed)]) for seed in experiment.seeds]
    return students


def best(students: list[ValidatedStudent]) -> ValidatedStudent:
    return max(students, key=lambda student: student.score)  # the first of equals


def export(experiment: Experiment) -> dict[str, ValidatedStudent]:
    """Fill models/best; returns the chosen student of each task."""
    chosen = {task: best(validated_students(experiment, task)) for task in experiment.tasks}

    def fill(folder: Path) -> None:
        for task, student in chosen.items():
            source = folders.student(student.method, task, student.seed)
            shutil.copytree(source, folder / task)
            card = Path("reports/cards") / f"{task}-{student.method}.md"
            shutil.copy(card, folder / task / "README.md")
        write_json(
            folder / "choice.json", {task: vars(student) for task, student in chosen.items()}
        )

    write_folder(folders.BEST, fill)
    return chosen


def main(argv: list[str] | None = None) -> None:
    chosen = export(stage_parameters(Parameters, __doc__, argv).experiment)
    for task, student in chosen.items():
        print(
            f"{folders.BEST / task}: {student.method}, seed {student.seed}, "
            f"{student.score:.1f} on validation"
        )


if __name__ == "__main__":
    run_command(main)
