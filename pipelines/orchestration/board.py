"""The stages of one flow run: each as a Prefect task, submitted when what it needs has ended.

DVC alone decides what is fresh and runs the commands. Refuses to know which project it is, and what
is done with the stages' ends.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prefect import allow_failure, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.states import Cancelled, Completed, Failed

from pipelines.orchestration import artifacts, graph, repro, runner
from pipelines.orchestration.publishing import progress_shown

# Seconds; the last one repeats.
RETRY_DELAYS = [1.0, 5.0, 10.0]


# ------------------------------------------------------------------------- one stage
def may_retry(_task: Any, _run: Any, state: State[Any]) -> bool:
    return not repro.refused(state.message or "")


@task(cache_policy=NO_CACHE, retry_condition_fn=may_retry)
def run_stage(
    root: Path,
    stage: graph.Stage,
    failed: list[str],
    lifeline: runner.Lifeline,
    env: dict[str, str],
    force: bool,
) -> State[Any]:
    """Bring one stage up to date. `failed` names the upstream stages that brought no output."""
    if lifeline.cut:
        return Cancelled(message="the flow run was cancelled")
    if failed:
        return Cancelled(name="Skipped", message=f"upstream without output: {', '.join(failed)}")
    if stage.fresh:
        return Completed(name="Cached", message="fresh: nothing to do")
    with progress_shown(root, stage.name) as shown:
        ended = repro.repro(root, stage, lifeline, get_run_logger().info, env, force)
    if not ended.status:
        shown.finish()
    return outcome(stage, ended)


def outcome(stage: graph.Stage, ended: runner.Ended) -> State[Any]:
    output = "\n".join(ended.tail)
    if ended.status == runner.CANCELLED:
        return Cancelled(message="ended on request")
    if ended.status == runner.TIMED_OUT:
        return Failed(message=f"not done after {stage.timeout_seconds} s\n{output}")
    if ended.status:
        return Failed(message=f"DVC exited with status {ended.status}\n{output}")
    if repro.not_run(ended):
        return Completed(name="Cached", message="its inputs came out as they were")
    return Completed()


# ------------------------------------------------------------------------- all of them
class Board:
    """The stages of one flow run: which wait, which run, how each one ended."""

    def __init__(self, root: Path, max_workers: int, force: bool) -> None:
        self.root = root
        self.waiting: dict[str, graph.Stage] = {}
        self.max_workers = max_workers
        self.force = force
        self.env = repro.environment(max_workers)
        self.lifeline = runner.Lifeline()
        self.ended: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.futures: dict[str, PrefectFuture[Any]] = {}
        self.started: dict[str, float] = {}
        self.states: dict[str, State[Any]] = {}
        self.seconds: dict[str, float] = {}

    def run(self, stages: list[graph.Stage]) -> None:
        """Until every stage has an end; those that have one already do not run again.

        Whatever interrupts this ends the running commands.
        """
        self.waiting = {stage.name: stage for stage in stages if stage.name not in self.states}
        try:
            while self.waiting or len(self.states) < len(self.futures):
                self._submit_ready()
                self._take(self.ended.get())
        except BaseException:  # KeyboardInterrupt, Prefect's TerminationSignal, …
            self.lifeline.end()
            for future in self.futures.values():
                future.wait()
            raise

    def close(self) -> None:
        self.lifeline.close()

    def _submit_ready(self) -> None:
        for stage in list(self.waiting.values()):
            if len(self.futures) - len(self.states) >= self.max_workers:
                return
            if all(name in self.states for name in stage.upstream):
                self._submit(self.waiting.pop(stage.name))

    def _submit(self, stage: graph.Stage) -> None:
        failed = [name for name in stage.upstream if not self.states[name].is_completed()]
        named = run_stage.with_options(
            name=stage.name,
            task_run_name=stage.name.replace("{", "{{").replace("}", "}}"),
            tags=list(stage.tags),
            retries=stage.retries,
            retry_delay_seconds=RETRY_DELAYS,
        )
        self.started[stage.name] = time.monotonic()
        future = named.submit(
            self.root,
            stage,
            failed,
            self.lifeline,
            self.env,
            self.force,
            return_state=False,
            # The upstreams have ended, well or not: this draws the edges of the run's graph.
            wait_for=[allow_failure(self.futures[name]) for name in stage.upstream],
        )
        self.futures[stage.name] = future
        future.add_done_callback(lambda _: self.ended.put(stage.name))

    def _take(self, name: str) -> None:
        future = self.futures[name]
        future.wait()
        self.states[name] = future.state
        self.seconds[name] = time.monotonic() - self.started[name]

    def rows(self, stages: Iterable[graph.Stage]) -> list[artifacts.Row]:
        return [
            artifacts.Row(s.name, self.states[s.name].name or "", self.seconds[s.name])
            for s in stages
        ]
