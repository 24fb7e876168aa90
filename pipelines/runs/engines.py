"""Who does a stage's jobs: the one place that chooses between this machine and a cluster.

An engine takes jobs and gives what they made, in their order. The results are the same
(docs/adr/0021-engines.md). Refuses to know what the jobs do.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.runs.cluster import run_on_cluster
from pipelines.runs.jobs import Finished, Job, Result, describe
from pipelines.runs.machine import Machine
from pipelines.runs.progress import announced, planned
from pipelines.runs.tracking import tracked
from pipelines.runs.workers import run_in_processes

# `runtime.engine` -> how it does jobs
ENGINES = {"local": run_in_processes, "ray": run_on_cluster}


def run_jobs(
    jobs: Sequence[Job[Result]], machine: Machine, extra: int = 0
) -> list[Finished[Result]]:
    """Do or find these jobs, side by side, in the order given.

    extra: jobs at once beyond one a core, so that the last ones of a stage share the cores instead
    of leaving one idle.

    Raises what the first failing job raised; jobs that were not yet started are dropped.
    """
    for job in jobs:
        describe(job, machine.scratch)
    engine, runtime = ENGINES[machine.runtime.engine], machine.runtime
    with announced(planned(jobs, machine.scratch)) as said, tracked(runtime.tracker, said):
        return engine(jobs, machine, extra)
