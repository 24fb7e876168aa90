"""One training run by one process and by two, side by side: how much sooner is it done?

`python -m benchmarks.processes` needs two quiet cores. Each process has one thread; beside them
stands one process with two. Wall seconds of a step: a run of many steps less one of few, so that
starting and saving do not count. Medians of rounds that take turns. Random weights.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from pipelines.runs.inputs import TaskData
from pipelines.runs.jobs import finish
from pipelines.runs.machine import Machine
from pipelines.runs.training import RunSpec, save_model
from pipelines.settings.runtime import Runtime
from skd.data.generators.summarization import generate
from skd.data.record import ExampleRow
from skd.models.procedural import procedural_model, train_tokenizer
from skd.models.settings import Budget, ProceduralModel
from skd.training.settings import Distill, MethodSettings, Optimisation

# Large enough that a step works more than it waits, small enough for a minute a run
STUDENT = ProceduralModel("procedural", hidden_size=256, layers=4, heads=4, steps=0, seed=1)
TEACHER = replace(STUDENT, hidden_size=384, layers=6, heads=6, seed=2)
ROWS, FEW, MANY = 256, 2, 14
OPTIMISATION = Optimisation(steps=MANY, batch_size=16, learning_rate=1e-3, validation_examples=4)
METHODS = ("sft", "supervised_kd", "skd")
# Name -> processes, and threads of each
WAYS = {"1 process": (1, 1), "2 processes": (2, 1), "1 process, 2 threads": (1, 2)}


def job(folder: Path, method: str, steps: int) -> RunSpec:
    """The run of a method with the pair in the folder, which is made there if need be."""
    examples = list(generate(ROWS, random.Random(0)))
    rows: list[ExampleRow] = [
        {"id": str(n), "source": one.source, "target": one.target, "references": [one.target]}
        for n, one in enumerate(examples)
    ]
    if not (folder / "student").exists():
        tokenizer = train_tokenizer((one.source + one.target for one in examples), 800)
        for name, settings in (("teacher", TEACHER), ("student", STUDENT)):
            save_model(procedural_model(settings, tokenizer), tokenizer, folder / name)
    return RunSpec(
        name=f"{method}-{steps}",
        task=TaskData("toy", "summarization", "{source}", Budget(256, 32), rows, rows[:4]),
        settings=MethodSettings(method),
        distill=Distill(replace(OPTIMISATION, steps=steps)),
        start_folder=folder / "student",
        teacher_folder=None if method == "sft" else folder / "teacher",
        seed=20,
    )


def seconds(folder: Path, method: str, steps: int, processes: int, threads: int) -> float:
    """Of a run that was never made."""
    torch.set_num_threads(threads * processes)  # which the processes share
    with tempfile.TemporaryDirectory() as scratch:
        runtime = Runtime(
            device="cpu", workers=1, progress=False, scratch=scratch, processes=processes
        )
        machine = Machine(torch.device("cpu"), runtime, decoding_batch=8)
        spec = job(folder, method, steps)
        began = time.monotonic()
        finish(spec, machine)
        return time.monotonic() - began


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.processes", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args(argv).rounds
    print(
        "| method | " + " | ".join(WAYS) + " | 2 processes ÷ 1 |\n|:--|" + "--:|" * (len(WAYS) + 1)
    )
    with tempfile.TemporaryDirectory() as folder:
        for method in METHODS:
            taken: dict[str, list[float]] = {name: [] for name in WAYS}
            for _ in range(rounds):
                for name, way in WAYS.items():
                    few, many = (seconds(Path(folder), method, n, *way) for n in (FEW, MANY))
                    taken[name].append((many - few) / (MANY - FEW))
            steps = {name: statistics.median(values) for name, values in taken.items()}
            ratio = steps["2 processes"] / steps["1 process"]
            cells = " | ".join(f"{step * 1000:.0f} ms" for step in steps.values())
            print(f"| `{method}` | {cells} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
