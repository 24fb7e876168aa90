"""What to use: per task the highest mean, what cannot be told from it, and what is cheapest there.

Rests on the verdicts of `skd.report.pairs`. Calls nothing "best": that needs a verdict over all.
"""

from __future__ import annotations

from statistics import fmean

from skd.report.analyses import Analyses
from skd.report.compare import TIE
from skd.report.pairs import Pair
from skd.report.run import Json, Run, TaskRun
from skd.report.tables import mean_cost, number, table, values_text

MOST_NAMES = 4  # in a cell; more are counted


def section(run: Run, pairs: list[Pair], analyses: Analyses) -> str:
    """Empty where a run compares nothing."""
    if not pairs:
        return ""
    header = ["task", "highest mean", "cannot be told from it", "cheapest of all these", "seconds"]
    rows = [_row(task, pairs) for task in run.tasks]
    parts = [
        "### If you must choose\n\n*Cannot be told from it*: ties after correction over all pairs "
        "of methods. *Seconds*: of one student's training, mean over seeds.",
        table([*header, "teacher tokens"], rows, text_columns=4),
        "\n".join(_sweep(name, facts) for name, facts in analyses.sweeps.items()),
    ]
    return "\n\n".join(part for part in parts if part)


def _row(task: TaskRun, pairs: list[Pair]) -> list[str]:
    means = {name: fmean(task.models[name].values(task.primary)) for name in task.training}
    top = max(means, key=means.__getitem__)
    ties = tied(task.name, top, pairs)
    seconds = {name: mean_cost(task.training[name], "seconds") or 0.0 for name in (top, *ties)}
    cheapest = min(seconds, key=seconds.__getitem__)
    read = mean_cost(task.training[cheapest], "teacher_tokens")
    cells = [_scored(task, top), _names(ties), _scored(task, cheapest)]
    return [task.name, *cells, number(seconds[cheapest], 1), number(read)]


def tied(task: str, method: str, pairs: list[Pair]) -> list[str]:
    """The methods that a verdict calls a tie with this one, in the order of the run."""
    found = []
    for pair in pairs:
        both = (pair.verdict.method, pair.verdict.other)
        if pair.task == task and method in both and pair.verdict.word == TIE:
            found.append(both[1] if both[0] == method else both[0])
    return found


def _scored(task: TaskRun, method: str) -> str:
    return f"`{method}` {values_text(task.models[method].values(task.primary))}"


def _names(names: list[str]) -> str:
    if len(names) > MOST_NAMES:
        return f"{len(names)} of the others"
    return ", ".join(f"`{name}`" for name in names) or "none"


def _sweep(name: str, facts: Json) -> str:
    """The ends of a sweep by the validation metric; one line per task."""
    lines = []
    for task, values in facts["runs"].items():
        means = {
            value: fmean(run["validation"]["metric"] for run in runs.values())
            for value, runs in values.items()
        }
        high, low = max(means, key=means.__getitem__), min(means, key=means.__getitem__)
        seeds = len(facts["seeds"])
        lines.append(
            f"- `{facts['setting']}` of `{facts['method']}` on {task} (sweep `{name}`, validation, "
            f"{seeds} seed{'s' if seeds > 1 else ''}, not tested): highest at `{high}` "
            f"({means[high]:.1f}), lowest at `{low}` ({means[low]:.1f})."
        )
    return "\n".join(lines)
