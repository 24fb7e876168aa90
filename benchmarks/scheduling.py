"""How long the experiment's runs take on more workers, from the seconds that metrics/ recorded.

`python -m benchmarks.scheduling` replays the committed runs of the stages `sft` and `distill` with
the longest first, each on the first worker that is free, and prints a table. Students wait for the
tuned models they start from. Nothing is trained; what one run costs an engine is an argument.
"""

from __future__ import annotations

import argparse
import heapq
import json
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.setting import ROOT
from pipelines.schema import load

WORKERS = (1, 2, 4, 8, 16, 32, 64)


def makespan(seconds: Iterable[float], workers: int) -> float:
    """Seconds until the last run is done, longest first, each on the first free worker."""
    free = [0.0] * workers
    for run in sorted(seconds, reverse=True):
        heapq.heappush(free, heapq.heappop(free) + run)
    return max(free)


def recorded() -> tuple[list[float], list[list[float]]]:
    """Seconds of the runs of `sft`, and of each method's runs."""
    params = load(ROOT / "params.yaml")
    methods = [_runs(f"distill/{name}") for name in params.experiment.methods]
    return _runs("sft"), methods


def _runs(part: str) -> list[float]:
    result: Any = json.loads((ROOT / "metrics" / f"{part}.json").read_text(encoding="utf-8"))
    return [run["cost"]["seconds"] for runs in result["tasks"].values() for run in runs.values()]


def minutes(stages: Sequence[Sequence[float]], workers: int, overhead: float) -> float:
    """One stage after the other."""
    return sum(makespan((run + overhead for run in runs), workers) for runs in stages) / 60


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scheduling", description=__doc__)
    parser.add_argument(
        "--overhead", type=float, default=0.0, help="seconds an engine adds to each run"
    )
    overhead: float = parser.parse_args(argv).overhead
    tuning, methods = recorded()
    every = [run for runs in methods for run in runs]
    print(
        f"{len(tuning)} + {len(every)} runs, longest {max(every):.0f} s, {overhead:g} s for each\n"
    )
    print("| workers | stage after stage, minutes | all methods at once, minutes | times as fast |")
    print("|--:|--:|--:|--:|")
    alone = minutes([tuning, every], 1, 0.0)
    for workers in WORKERS:
        apart = minutes([tuning, *methods], workers, overhead)
        at_once = minutes([tuning, every], workers, overhead)
        print(f"| {workers} | {apart:.1f} | {at_once:.1f} | {alone / at_once:.1f} |")


if __name__ == "__main__":
    main()
