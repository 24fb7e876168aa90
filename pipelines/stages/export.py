"""Stage `export`: per task, the student that did best on validation, with its model card.

models/best/<task> is a folder that `transformers` loads. The choice reads the validation scores
that training wrote; the test split has no part in it. Ties: the earlier method, the earlier seed.
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import dataclass
from pathlib import Path

from pipelines.params import Params, load
from pipelines.runs import folders
from pipelines.stages.command import run as run_stage
from skd.files import read_json, write_folder, write_json


@dataclass(frozen=True)
class Candidate:
    method: str
    seed: int
    score: float  # primary metric on the validation rows that training used, percent


def candidates(params: Params, task: str) -> list[Candidate]:
    found = []
    for method in params.experiment.methods:
        seeds = read_json(Path("metrics/distill") / f"{method}.json")["tasks"][task]["seeds"]
        for seed in params.experiment.seeds:
            score = seeds[str(seed)]["validation"]["metric"]
            found.append(Candidate(method, seed, score))
    return found


def best(found: list[Candidate]) -> Candidate:
    return max(found, key=lambda candidate: candidate.score)  # the first of equals


def export(params: Params) -> dict[str, Candidate]:
    """Fill models/best; -> the chosen student of each task."""
    chosen = {task: best(candidates(params, task)) for task in params.experiment.tasks}

    def fill(folder: Path) -> None:
        for task, one in chosen.items():
            source = folders.student(one.method, task, one.seed)
            shutil.copytree(source, folder / task, ignore=shutil.ignore_patterns("log.jsonl"))
            card = Path("reports/cards") / f"{task}-{one.method}.md"
            shutil.copy(card, folder / task / "README.md")
        write_json(folder / "choice.json", {task: vars(one) for task, one in chosen.items()})

    write_folder(folders.BEST, fill)
    return chosen


def main(argv: list[str] | None = None) -> None:
    argparse.ArgumentParser(description=__doc__).parse_args(argv)
    chosen = export(load())
    for task, one in chosen.items():
        print(
            f"{folders.BEST / task}: {one.method}, seed {one.seed}, {one.score:.1f} on validation"
        )


if __name__ == "__main__":
    run_stage(main)
