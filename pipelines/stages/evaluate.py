"""Stage `evaluate`: greedy outputs and scores of all models on the test splits and the test sets.

A test set has no models of its own: its task's are scored on it. One stage tests all models,
because importing the libraries and preparing the references takes longer than testing one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pipelines.parameters import At
from pipelines.runs import folders
from pipelines.runs.engines import run_jobs
from pipelines.runs.inputs import TEST_SETS
from pipelines.runs.machine import Machine
from pipelines.runs.testing import TestedModel, Testing, TestSplit, own_split, test_split
from pipelines.settings.evaluate import Evaluate
from pipelines.settings.runtime import Runtime
from pipelines.stages.command import METRICS, run_command, stage_parameters, took, write_metrics
from skd.files import write_folder
from skd.models.settings import Budget
from skd.results.evaluation import EvaluateResult, MethodScores, SplitScores
from skd.results.files import write_result, write_results
from skd.settings import Name, Names, SomeSeeds

STARTS = "starts"  # the teachers, and the students before distillation
RECORDS = Path("records")
# Method or STARTS -> split -> its models
Tested = Mapping[str, Mapping[str, list[TestedModel]]]


@dataclass(frozen=True)
class Parameters:
    tasks: Annotated[Names, At("experiment.tasks")]
    methods: Annotated[Names, At("experiment.methods")]
    seeds: Annotated[SomeSeeds, At("experiment.seeds")]
    test_sets: Annotated[Names, At("experiment.test_sets")]
    budget: dict[Name, Budget]
    evaluate: Evaluate
    runtime: Runtime


def subjects(task: str, name: str, seeds: list[int]) -> list[tuple[str, int | None, Path]]:
    """Name, seed and folder of the models that a method left on a task, or of its starts."""
    if name != STARTS:
        return [(name, seed, folders.student(name, task, seed)) for seed in seeds]
    return [
        ("teacher", None, folders.teacher(task)),
        ("student_init_instruct", None, folders.start(task, seeds[0], "instruct")),
        *(("student_init", seed, folders.start(task, seed)) for seed in seeds),
    ]


def test_splits(parameters: Parameters) -> dict[str, TestSplit]:
    """The tasks' own test splits, then the other test sets."""
    own = {name: own_split(name, parameters.budget) for name in parameters.tasks}
    others = {
        name: test_split(TEST_SETS / name, parameters.budget) for name in parameters.test_sets
    }
    return own | others


def evaluate(parameters: Parameters) -> dict[str, dict[str, list[TestedModel]]]:
    """Method or STARTS -> split -> what was found of each of its models."""
    machine = Machine.of(parameters.runtime, parameters.evaluate.batch_size)
    splits = test_splits(parameters)
    longest_first = sorted(splits, key=lambda name: -splits[name].budget.max_new_tokens)
    wanted = [
        (name, split, subject)
        for split in longest_first
        for name in (STARTS, *parameters.methods)
        for subject in subjects(splits[split].task, name, parameters.seeds)
    ]
    jobs = [
        Testing(*subject, splits[split], parameters.evaluate, machine.device.type)
        for _, split, subject in wanted
    ]
    tested: dict[str, dict[str, list[TestedModel]]] = {}
    for (name, split, _), done in zip(wanted, run_jobs(jobs, machine), strict=True):
        tested.setdefault(name, {}).setdefault(split, []).append(done.result)
    return tested


# -------------------------------------------------------------------- files
def publish(parameters: Parameters, tested: Tested) -> None:
    """records/NAME/SPLIT.jsonl and metrics/evaluate/NAME.json, and nothing else beside them."""

    def fill_records(folder: Path) -> None:
        for name, splits in tested.items():
            for split, models in splits.items():
                records = [record for model in models for record in model.records]
                write_results(folder / name / f"{split}.jsonl", records)

    def fill_metrics(folder: Path) -> None:
        for name, splits in tested.items():
            scores = MethodScores(
                tasks={task: split_scores(splits[task]) for task in parameters.tasks},
                test_sets={other: split_scores(splits[other]) for other in parameters.test_sets},
            )
            write_result(folder / f"{name}.json", scores)

    write_folder(RECORDS, fill_records)
    write_folder(METRICS / "evaluate", fill_metrics)


def split_scores(models: list[TestedModel]) -> SplitScores:
    by_model: dict[str, dict[str, dict[str, float]]] = {}
    for model in models:
        by_model.setdefault(model.name, {})[model.seed] = model.system
    return SplitScores(
        split="test",
        n=len(models[0].records),
        signatures=models[0].signatures,
        not_scored=models[0].not_scored,
        models=by_model,
    )


def main(argv: list[str] | None = None) -> None:
    parameters = stage_parameters(Parameters, __doc__, argv)
    publish(parameters, evaluate(parameters))
    machine = Machine.of(parameters.runtime, parameters.evaluate.batch_size)
    write_metrics("evaluate", EvaluateResult(took(machine.device)))


if __name__ == "__main__":
    run_command(main)
