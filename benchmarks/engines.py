"""Many short runs by the engines `local` and `ray`, on one worker and on two: what does a run cost?

`python -m benchmarks.engines` needs two quiet cores and Ray (`make extras`). Ray's workers are
nodes of one core on loopback, each with a folder of its own, as on machines that share no disk.
Wall seconds; what starts once is measured by a run of its own, beforehand. Random weights.
"""

from __future__ import annotations

import argparse
import os
import secrets
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal
from unittest.mock import patch

import torch

from benchmarks.processes import job
from pipelines.runs.engines import run_jobs
from pipelines.runs.machine import Machine
from pipelines.runs.training import RunSpec
from pipelines.settings.runtime import Runtime

Engine = Literal["local", "ray"]
ENGINES: tuple[Engine, ...] = ("local", "ray")
METHOD = "sft"
WORKERS = (1, 2)


@contextmanager
def cluster(folder: Path, workers: int) -> Iterator[None]:
    """A head without cores and so many workers of one core each, at RAY_ADDRESS.

    Their folders are `folder`/head, `folder`/1, `folder`/2 and so on, of a short path, since
    sockets lie below them.
    """
    (folder / "ray").mkdir(parents=True)  # for Ray's note of the address, which needs the folder
    settings = {
        "RAY_TMPDIR": str(folder),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # loopback; read by the import
    }
    with patch.dict(os.environ, settings):
        import ray
        from ray.cluster_utils import Cluster

        nodes = Cluster()
        try:
            for name in ("head", *range(1, workers + 1)):
                nodes.add_node(
                    num_cpus=0 if name == "head" else 1,
                    temp_dir=str(folder / f"{name}"),
                    include_dashboard=False,
                )
            os.environ["RAY_ADDRESS"] = nodes.address
            yield
        finally:
            ray.shutdown()
            nodes.shutdown()


def seconds(jobs: Sequence[RunSpec], engine: Engine, workers: int, scratch: Path) -> float:
    """Of these runs, none of which was made before."""
    torch.set_num_threads(workers)  # one for each run
    runtime = Runtime(
        device="cpu", workers=workers, progress=False, scratch=str(scratch), engine=engine
    )
    began = time.monotonic()
    run_jobs(jobs, Machine(torch.device("cpu"), runtime, decoding_batch=8))
    return time.monotonic() - began


def measure(
    jobs: Sequence[RunSpec], engine: Engine, workers: int, folder: Path
) -> tuple[float, ...]:
    """Seconds of a first run of each worker, and of all the others."""
    # To Ray's workers the path says their own working directory
    scratch = Path("scratch") if engine == "ray" else folder / "scratch"
    first = seconds(jobs[:workers], engine, workers, scratch)
    return first, seconds(jobs[workers:], engine, workers, scratch)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engines", description=__doc__)
    parser.add_argument("--runs", type=int, default=126)
    parser.add_argument("--steps", type=int, default=4)
    args = parser.parse_args(argv)
    print(f"{args.runs} runs of {args.steps} steps, `{METHOD}`\n")
    print("| engine | workers | first runs, s | all others, s | s a run | times as fast |")
    print("|:--|--:|--:|--:|--:|--:|")
    alone = 0.0
    for engine in ENGINES:
        for workers in WORKERS:
            with tempfile.TemporaryDirectory(prefix="skd", ignore_cleanup_errors=True) as name:
                folder = Path(name)
                run = job(folder, METHOD, args.steps)
                jobs = [replace(run, seed=seed) for seed in range(args.runs + workers)]
                os.chdir(folder)
                if engine == "ray":
                    with cluster(folder, workers):
                        first, rest = measure(jobs, engine, workers, folder)
                else:
                    first, rest = measure(jobs, engine, workers, folder)
            alone = alone or rest
            print(
                f"| `{engine}` | {workers} | {first:.1f} | {rest:.1f} | "
                f"{rest * workers / args.runs:.2f} | {alone / rest:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
