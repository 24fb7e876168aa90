"""DVC's graph as a Prefect flow, experiments beside the workspace, and commands to start them.

DVC alone decides what is fresh; Prefect adds parallel stages, retries, time limits,
cancelling, schedules, logs, artifacts and the UI. `dvc repro` needs nothing of this.
It knows no task, no method and no model.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from contextlib import chdir, closing
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from pipelines.orchestration import artifacts, graph, remote, repair, restorable, server, worktree
from skd.errors import UserError, printable

os.environ.update(server.PRIVATE)  # read when prefect is imported

from prefect import Flow, flow, get_run_logger, serve, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.deployments.runner import RunnerDeployment
from prefect.schedules import Cron
from prefect.settings import PREFECT_API_URL
from prefect.states import Completed, Failed

from pipelines.orchestration.arguments import parse
from pipelines.orchestration.board import Board
from pipelines.orchestration.leftovers import tidy
from pipelines.orchestration.publishing import publish, publish_comparison

# In UTC; the schedule starts paused.
NIGHTLY = "0 3 * * *"
Name = Annotated[str, Field(pattern=worktree.NAME)]
Override = Annotated[str, Field(pattern=worktree.OVERRIDE)]


@task(cache_policy=NO_CACHE)
def exchange(command: str) -> None:
    """`pull` what the experiment lacks from the DVC remote, or `push` what it has made."""
    for line in remote.COMMANDS[command](Path.cwd()):
        get_run_logger().info(line)


@flow(name="skd")  # its tasks run in threads, Prefect's default: the work is in child processes
def reproduce(
    targets: list[str] | None = None,
    force: bool = False,
    max_workers: int | None = None,
    pull: bool = False,
    push: bool = False,
) -> State[Any]:
    """Bring the workspace up to date: every stale stage of `dvc.yaml`, side by side.

    Args:
        targets: Stages to bring up to date, with all they need: `report`, a whole matrix
            such as `distill`, or one cell such as `distill@skd`. Empty: all stages.
        force: Run every chosen stage again, fresh or not.
        max_workers: Stages that run side by side. Empty: one per core.
        pull: Bring what is missing here from the DVC remote first. What is missing or damaged
            there is made again.
        push: Put what was made into the DVC remote at the end.
    """
    return _bring_up(Path.cwd(), targets, force, max_workers, pull, push)


@flow(name="skd-experiment")
def experiment(
    name: Name,
    overrides: list[Override],
    targets: list[str] | None = None,
    max_workers: int | None = None,
) -> State[Any]:
    """Run the experiment with other parameters and save it as a DVC experiment.

    The workspace is left as it is. `dvc exp show` lists what is saved, `dvc exp apply NAME` brings
    it into the workspace.

    Args:
        name: Of the experiment: letters, digits, dashes and underscores.
        overrides: Parameters of `params.yaml`, one each: `methods.skd.acceptance.value=5`.
        targets: Stages to run, with all they need. Empty: all stages.
        max_workers: Stages that run side by side. Empty: one per core.
    """
    try:
        # DVC names stages from where the process stands; each experiment has a process of its own.
        with worktree.worktree(Path.cwd(), name, overrides) as folder, chdir(folder):
            state = _bring_up(folder, targets, max_workers=max_workers)
            if state.is_completed():
                get_run_logger().info("Saving it as a DVC experiment")
                worktree.save(folder, name, [one.name for one in graph.plan(folder, targets)])
                get_run_logger().info("Saved: `dvc exp apply %s` brings it here", name)
    except UserError as error:
        return Failed(message=str(error))
    return state


@flow(name="skd-sweep")
def sweep(
    name: Name,
    variants: list[list[Override]],
    targets: list[str] | None = None,
    max_workers: int | None = None,
) -> State[Any]:
    """Run several experiments one after the other and compare each with the first.

    Args:
        name: The experiments are called NAME-1, NAME-2 and so on.
        variants: For each experiment its parameters: `methods.skd.acceptance.value=5`.
        targets: Stages to run, with all they need. Empty: all stages.
        max_workers: Stages that run side by side. Empty: one per core.
    """
    from pipelines import compare  # the report's statistics, which no other flow waits for

    done = {
        f"{name}-{number}": experiment.with_options(flow_run_name=f"{name}-{number}")(
            f"{name}-{number}", overrides, targets, max_workers, return_state=True
        )
        for number, overrides in enumerate(variants, 1)
    }
    saved = [one for one, state in done.items() if state.is_completed()]
    try:
        revisions = compare.read_all(Path.cwd(), saved)
        rows = [row for other in revisions[1:] for row in compare.rows(revisions[0], other)]
        publish_comparison(rows, f"Each against the first of: {', '.join(saved) or 'none'}")
    except UserError as error:
        return Failed(message=str(error))
    failed = {one: state.message for one, state in done.items() if not state.is_completed()}
    if failed:
        return Failed(message="; ".join(f"{one}: {message}" for one, message in failed.items()))
    return Completed(message=f"saved: {', '.join(saved)}")


def _bring_up(
    root: Path,
    targets: list[str] | None,
    force: bool = False,
    max_workers: int | None = None,
    pull: bool = False,
    push: bool = False,
) -> State[Any]:
    """The stages of the project at `root`, their table and the report."""
    logger = get_run_logger()
    try:
        if max_workers is not None and max_workers < 1:
            raise UserError(f"max_workers is {max_workers}; expected at least 1")
        for line in (*repair.repair(root), *tidy(root)):
            logger.warning(line)
        if pull:
            exchange.with_options(name="pull", task_run_name="pull")("pull")
        with closing(Board(root, max_workers or os.cpu_count() or 1, force)) as board:
            board.run([s for s in graph.plan(root, targets, force) if s.name == graph.CODE_STAGE])
            stages = graph.plan(root, targets, force)
            stale = [stage.command for stage in stages if not stage.fresh]
            for line in restorable.take_out_damaged(graph.cache(root), root / "dvc.lock", stale):
                logger.warning(line)
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


def serve_all() -> None:
    """Offer the flows as deployments and run what is asked of them.

    One run at a time in the workspace; experiments beside it, as many as Prefect's setting
    PREFECT_RUNNER_PROCESS_LIMIT allows (5).
    """
    nightly = Cron(NIGHTLY, timezone="UTC", active=False)
    serve(
        _deployment(reproduce, "local", schedule=nightly, concurrency_limit=1),
        _deployment(experiment, "experiment"),
        _deployment(sweep, "sweep"),
    )


def _deployment(what: Flow[..., Any], name: str, **settings: Any) -> RunnerDeployment:
    made = what.to_deployment(name, **settings)
    assert isinstance(made, RunnerDeployment)  # a coroutine where an event loop runs
    return made


# ------------------------------------------------------------------------ command line
def main(argv: list[str] | None = None) -> int:
    words = sys.argv[1:] if argv is None else argv
    options = parse(words, __doc__)
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


def _run(options: argparse.Namespace, words: list[str]) -> int:
    repair.let_end(Path.cwd())
    for line in repair.repair(Path.cwd()):
        print(line, file=sys.stderr)
    graph.plan(Path.cwd(), options.target)  # a wrong target is told before a server starts
    if not PREFECT_API_URL.value():
        with server.running() as url:
            print(f"Watch it at {url}", flush=True)
            return server.call(["pipelines.orchestration.flow", *words], url)
    chosen = (options.target, options.force, options.max_workers, options.pull, options.push)
    state = reproduce(*chosen, return_state=True)
    print(state.message, file=sys.stdout if state.is_completed() else sys.stderr)
    return 0 if state.is_completed() else 1


def _ui(options: argparse.Namespace, _words: list[str]) -> int:
    with server.running(options.port) as url:
        print(f"Prefect UI: {url}  (Ctrl-C ends it)", flush=True)
        return server.call(["pipelines.orchestration.flow", "serve"], url)


def _serve(_options: argparse.Namespace, _words: list[str]) -> int:
    # By its module's name: run with -m, this one is called __main__.
    importlib.import_module("pipelines.orchestration.flow").serve_all()
    return 0


COMMANDS = {"run": _run, "ui": _ui, "serve": _serve}

if __name__ == "__main__":
    raise SystemExit(main())
