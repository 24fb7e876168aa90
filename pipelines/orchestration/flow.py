"""DVC's graph as a Prefect flow: one task per stage, run through DVC itself.

DVC alone decides what is fresh; Prefect adds parallel stages, retries, time limits,
cancelling, schedules, logs, artifacts and the UI. `dvc repro` needs nothing of this.
The only module that imports prefect. It knows no task, no method and no model.
"""

from __future__ import annotations

import argparse
import importlib
import os
import queue
import signal
import sys
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from pipelines.orchestration import artifacts, graph, remote, repair, repro, runner, server
from skd.errors import UserError, printable

os.environ.update(server.PRIVATE)  # read when prefect is imported

from prefect import allow_failure, flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.schedules import Cron
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelled, Completed, Failed

REPORT_STAGE, REPORT = "report", Path("reports/report.md")
# Seconds; the last one repeats.
RETRY_DELAYS = [1.0, 5.0, 10.0]
# In UTC; the schedule starts paused.
NIGHTLY = "0 3 * * *"


# ------------------------------------------------------------------------- one stage
def may_retry(_task: Any, _run: Any, state: State[Any]) -> bool:
    return not repro.refused(state.message or "")


@task(cache_policy=NO_CACHE, retry_condition_fn=may_retry)
def run_stage(
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
    ended = repro.repro(stage, lifeline, get_run_logger().info, env, force)
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


# ------------------------------------------------------------------------- the remote
@task(cache_policy=NO_CACHE)
def exchange(command: str) -> None:
    """`pull` what the experiment lacks from the DVC remote, or `push` what it has made."""
    for line in remote.COMMANDS[command](Path.cwd()):
        get_run_logger().info(line)


# ------------------------------------------------------------------------- all of them
class Board:
    """The stages of one flow run: which wait, which run, how each one ended."""

    def __init__(self, max_workers: int, force: bool) -> None:
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


@flow(name="skd")  # its tasks run in threads, Prefect's default: the work is in child processes
def experiment(
    targets: list[str] | None = None,
    force: bool = False,
    max_workers: int | None = None,
    pull: bool = False,
    push: bool = False,
) -> State[Any]:
    """Bring the experiment up to date: every stale stage of `dvc.yaml`, side by side.

    Args:
        targets: Stages to bring up to date, with all they need: `report`, a whole matrix
            such as `distill`, or one cell such as `distill@skd`. Empty: all stages.
        force: Run every chosen stage again, fresh or not.
        max_workers: Stages that run side by side. Empty: one per core.
        pull: Bring what is missing here from the DVC remote first. What is missing or damaged
            there is made again.
        push: Put what was made into the DVC remote at the end.
    """
    logger = get_run_logger()
    root = Path.cwd()
    try:
        if max_workers is not None and max_workers < 1:
            raise UserError(f"max_workers is {max_workers}; expected at least 1")
        for line in repair.repair(root):
            logger.warning(line)
        if pull:
            exchange.with_options(name="pull", task_run_name="pull")("pull")
        with closing(Board(max_workers or os.cpu_count() or 1, force)) as board:
            board.run([s for s in graph.plan(root, targets, force) if s.name == graph.CODE_STAGE])
            stages = graph.plan(root, targets, force)
            board.run(stages)
        if push:
            exchange.with_options(name="push", task_run_name="push")("push")
    except UserError as error:
        return Failed(message=str(error))
    rows = board.rows(stages)
    publish(root, rows)
    logger.info("Stages:\n%s", artifacts.text_table(rows))
    failed = [row.stage for row in rows if row.state not in ("Completed", "Cached", "Skipped")]
    if failed:
        return Failed(message=f"failed: {', '.join(failed)} ({artifacts.summary(rows)})")
    return Completed(message=artifacts.summary(rows))


def publish(root: Path, rows: list[artifacts.Row]) -> None:
    create_table_artifact(artifacts.table(rows), key="stages", description="Stages of this run")
    fresh = {row.stage for row in rows if row.state in ("Completed", "Cached")}
    if REPORT_STAGE in fresh and (root / REPORT).is_file():
        text = artifacts.self_contained(root / REPORT)
        create_markdown_artifact(text, key="report", description="Report of the experiment")


def serve(name: str = "local") -> None:
    """Offer the flow as a deployment and run what is asked of it, one run at a time."""
    experiment.serve(name=name, schedule=Cron(NIGHTLY, timezone="UTC", active=False), limit=1)


# ------------------------------------------------------------------------ command line
def main(argv: list[str] | None = None) -> int:
    words = sys.argv[1:] if argv is None else argv
    options = parse(words)
    # Ignored signals are inherited (`nohup`, `&` in a script), and this one asks for the end.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return COMMANDS[options.command](options, words)
    except UserError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("cancelled: what finished is kept, the rest runs next time", file=sys.stderr)
        return 130


def parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.orchestration.flow", description=__doc__
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run the flow once, with a server of its own if need be")
    run.add_argument("--target", action="append", help="a stage; may be repeated")
    run.add_argument("--force", action="store_true", help="run fresh stages too")
    run.add_argument("--max-workers", type=int, help="stages side by side; default: one per core")
    run.add_argument("--pull", action="store_true", help="bring what is missing from the remote")
    run.add_argument("--push", action="store_true", help="put what was made into the remote")
    ui = commands.add_parser("ui", help="a server with the UI and the flow in it, until Ctrl-C")
    ui.add_argument("--port", type=int, default=4200)
    commands.add_parser("serve", help="offer the flow to the server at PREFECT_API_URL")
    return parser.parse_args(words)


def _run(options: argparse.Namespace, words: list[str]) -> int:
    for line in repair.repair(Path.cwd()):
        print(line, file=sys.stderr)
    graph.plan(Path.cwd(), options.target)  # a wrong target is told before a server starts
    if not PREFECT_API_URL.value():
        with server.running() as url:
            print(f"Watch it at {url}", flush=True)
            return server.call(["pipelines.orchestration.flow", *words], url)
    chosen = (options.target, options.force, options.max_workers, options.pull, options.push)
    state = experiment(*chosen, return_state=True)
    print(state.message, file=sys.stdout if state.is_completed() else sys.stderr)
    return 0 if state.is_completed() else 1


def _ui(options: argparse.Namespace, _words: list[str]) -> int:
    with server.running(options.port) as url:
        print(f"Prefect UI: {url}  (Ctrl-C ends it)", flush=True)
        return server.call(["pipelines.orchestration.flow", "serve"], url)


def _serve(_options: argparse.Namespace, _words: list[str]) -> int:
    # By its module's name: run with -m, this one is called __main__.
    importlib.import_module("pipelines.orchestration.flow").serve()
    return 0


COMMANDS = {"run": _run, "ui": _ui, "serve": _serve}

if __name__ == "__main__":
    raise SystemExit(main())
