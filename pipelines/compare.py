"""What changed between two revisions' results, in Markdown fit for a pull request.

Each revision is checked out into a clone of its own whose records come from this project's DVC
cache or remote, and is read as the report reads it. Runs no stage; changes nothing here.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pipelines.orchestration.worktree import experiment_commit
from pipelines.schema import Params, load
from pipelines.settings.experiment import Experiment
from pipelines.settings.report import Report
from pipelines.stages.command import run_command
from skd.errors import UserError
from skd.report.reading.experiment import ExperimentResults, TaskResults
from skd.report.reading.reader import read_experiment
from skd.report.sections.cells import (
    NONE,
    SIGNS,
    p_text,
    range_text,
    row_name,
    table,
    values_text,
)
from skd.report.verdicts.families import planned
from skd.report.verdicts.spread import fit
from skd.report.verdicts.tables import Verdict
from skd.settings import plain

NO_VERDICT = "none: too few seeds"


@dataclass(frozen=True)
class Revision:
    name: str
    params: Params
    results: ExperimentResults


def read(name: str, root: Path, folder: Path) -> Revision:
    """The results of a git revision or a DVC experiment.

    Raises `UserError` if git or DVC cannot give them.
    """
    commit = experiment_commit(root, name) or _run(
        ["git", "rev-parse", "--verify", f"{name}^{{commit}}"], root, f"no revision {name}"
    )
    _run(["git", "clone", "--quiet", "--shared", "--no-checkout", str(root), str(folder)], root, "")
    _run(["git", "checkout", "--quiet", commit], folder, f"{name} cannot be checked out")
    dvc = [sys.executable, "-m", "dvc"]
    cache = _run([*dvc, "cache", "dir"], root, "no DVC cache")
    _run([*dvc, "cache", "dir", "--local", cache], folder, "no DVC cache")
    params = load(folder / "params.yaml")
    experiment = params.experiment
    _run(
        [*dvc, "checkout", "--quiet", *_read_outputs(folder, experiment)],
        folder,
        f"the records of {name} are not in DVC's cache; `dvc fetch --all-commits` may bring them",
    )
    results = read_experiment(folder, experiment.tasks, experiment.methods, experiment.seeds)
    return Revision(name, params, results)


def read_all(root: Path, names: Sequence[str]) -> list[Revision]:
    """Several revisions, or a `UserError` as of `read`."""
    with tempfile.TemporaryDirectory() as folder:
        return [read(name, root, Path(folder) / str(place)) for place, name in enumerate(names)]


def _read_outputs(folder: Path, experiment: Experiment) -> list[str]:
    """The outputs that a report reads; checkpoints are left where they are.

    Those of the revision's own tasks and methods: dvc.lock keeps the stages of removed ones.
    """
    try:
        lock = yaml.safe_load((folder / "dvc.lock").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError("a revision without dvc.lock has no results to compare") from None
    paths = [out["path"] for stage in lock["stages"].values() for out in stage.get("outs", [])]
    read = {f"data/{task}" for task in experiment.tasks}
    read |= {f"logs/distill/{method}" for method in experiment.methods}
    return [path for path in paths if path in read or path.split("/")[0] == "records"]


def page(first: Revision, second: Revision) -> str:
    """Markdown: changed parameters, then each model's primary metric before and after."""
    parts = [f"# Results of `{second.name}` against `{first.name}`", _parameters(first, second)]
    pairs = _pairs(first, second)
    parts += [_task(before, after, second.params.report) for before, after in pairs]
    only = {task.name for task in (*first.results.tasks, *second.results.tasks)} - {
        a.name for a, _ in pairs
    }
    if only:
        parts.append(f"Only in one of them: {', '.join(sorted(only))}.")
    return "\n\n".join(parts) + "\n"


def _pairs(first: Revision, second: Revision) -> list[tuple[TaskResults, TaskResults]]:
    others = {task.name: task for task in first.results.tasks}
    return [(others[task.name], task) for task in second.results.tasks if task.name in others]


def _parameters(first: Revision, second: Revision) -> str:
    changed = [
        [f"`{_in_a_cell(cell)}`" for cell in cells] for cells in _changed_parameters(first, second)
    ]
    if not changed:
        return "No parameter differs."
    return table(["parameter", first.name, second.name], changed, text_columns=3)


def _in_a_cell(text: str) -> str:
    """As code in a table: on one line, without what would end either."""
    return " ".join(text.split()).replace("|", r"\|").replace("`", "'")


def _changed_parameters(first: Revision, second: Revision) -> list[tuple[str, str, str]]:
    """Name, before and after of each parameter that differs."""
    before, after = (dict(_flat(plain(r.params))) for r in (first, second))
    return [
        (key, before.get(key, NONE), after.get(key, NONE))
        for key in sorted(before.keys() | after.keys())
        if before.get(key, NONE) != after.get(key, NONE) and not key.startswith("runtime.")
    ]


def rows(first: Revision, second: Revision) -> list[dict[str, str]]:
    """The same as plain rows: one per task and model that both have."""
    changed = ", ".join(f"{key}={value}" for key, _, value in _changed_parameters(first, second))
    return [
        {"experiment": second.name, "parameters": changed, "task": after.name}
        | {"metric": after.primary}
        | dict(zip(_HEADER, (cell.replace("`", "") for cell in cells), strict=False))
        for before, after in _pairs(first, second)
        for cells in _rows(before, after, second.params.report)
    ]


_HEADER = ["model", "before", "after", "difference", "95 % interval", "p", "verdict"]


def _task(before: TaskResults, after: TaskResults, settings: Report) -> str:
    title = f"## {after.name}, {after.primary}"
    made = _rows(before, after, settings)
    if not _same_tests(before, after):
        text = table(_HEADER[:3], made)
        return f"{title}\n\nThe test sets differ, so nothing is tested.\n\n{text}"
    return f"{title}\n\n{table(_HEADER, made)}"


def _same_tests(before: TaskResults, after: TaskResults) -> bool:
    return before.ids == after.ids and before.rows == after.rows


def _rows(before: TaskResults, after: TaskResults, settings: Report) -> list[list[str]]:
    """Cells under `_HEADER` of each model that both have; the means alone on other test sets."""
    shared = [name for name in after.models if name in before.models]
    if not _same_tests(before, after):
        return [[row_name(n), *_means(before, after, n)] for n in shared]
    verdicts = _verdicts(before, after, settings.margin)
    rows = []
    for name in shared:
        cells = [row_name(name), *_means(before, after, name)]
        verdict = verdicts.get(name)
        if verdict is None:
            rows.append([*cells, NONE, NONE, NONE, "" if _changed(before, after, name) else "same"])
        else:
            made = verdict.comparison
            p = p_text(made.p) if verdict.possible else NONE
            word = f"{SIGNS[verdict.word]} {verdict.word}" if verdict.possible else NO_VERDICT
            rows.append([*cells, f"{made.difference:+.1f}", range_text(verdict), p, word])
    return rows


def _verdicts(before: TaskResults, after: TaskResults, margin: float) -> dict[str, Verdict]:
    """Of each trained model whose scores changed, judged together.

    A method that did not change stands once in the model: it tells how far runs spread.
    """
    methods = [name for name in after.training if name in before.training]
    changed = [name for name in methods if _changed(before, after, name)]
    if not changed:
        return {}
    scores = {name: after.scores(name) for name in methods}
    scores |= {_earlier(name): before.scores(name) for name in changed}
    made = planned(fit(scores), {name: [_earlier(name)] for name in changed})
    return {name: Verdict(comparisons[0], margin) for name, comparisons in made.items()}


def _earlier(name: str) -> str:
    """Its name among the methods of both revisions."""
    return f"{name}, before"


def _changed(before: TaskResults, after: TaskResults, name: str) -> bool:
    """Whether any run of the model got other scores."""
    ours, theirs = (task.scores(name) for task in (after, before))
    return ours.keys() != theirs.keys() or any(
        not np.array_equal(ours[seed], theirs[seed], equal_nan=True) for seed in ours
    )


def _means(before: TaskResults, after: TaskResults, name: str) -> list[str]:
    return [values_text(t.models[name].values(t.primary)) for t in (before, after)]


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{prefix}{key}.")
    else:
        yield prefix.rstrip("."), str(value)


def _run(command: list[str], folder: Path, problem: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise UserError(f"{problem or command[1]}: {said[-1] if said else 'failed'}")
    return done.stdout.strip()


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.compare", description=__doc__, epilog="Example: main HEAD"
    )
    parser.add_argument("before", metavar="REV_A", help="a git revision with results")
    parser.add_argument("after", metavar="REV_B", help="another one")
    arguments = parser.parse_args(argv)
    print(page(*read_all(Path.cwd(), [arguments.before, arguments.after])), end="")


if __name__ == "__main__":
    run_command(main)
