"""What to use: per task the highest mean, what cannot be told from it, and what is cheapest there.

Rests on the verdicts over all pairs. Calls nothing "best": that needs a verdict over all.
"""

from __future__ import annotations

from statistics import fmean

from skd.report.reading.analyses import Analyses
from skd.report.reading.experiment import ExperimentResults, TaskResults
from skd.report.sections.tables import COSTS, mean_cost, number, table, values_text
from skd.report.verdicts.compare import TIE
from skd.report.verdicts.pairs import MethodPair, win_count
from skd.results.analyses import SweepRuns

MOST_NAMES = 5  # in a cell, where a few exceptions say as much
NO_BREAK = "\u00a0"


def section(results: ExperimentResults, pairs: list[MethodPair], analyses: Analyses) -> str:
    """Empty where a run compares nothing."""
    if not pairs:
        return ""
    header = ["task", "highest mean", "cannot be told from it", "cheapest of these", "seconds"]
    rows = [_row(task, pairs) for task in results.tasks]
    parts = [
        "### If you must choose\n\n*Cannot be told from it*: ties, corrected over all pairs of "
        "methods; more seeds may part them. *Seconds*, *teacher tokens*: of one student's training "
        "with the cheapest, mean over seeds.",
        table([*header, "teacher tokens"], rows, text_columns=4),
        _over_all(results, pairs),
        "\n".join(_sweep(name, sweep) for name, sweep in analyses.sweeps.items()),
    ]
    return "\n\n".join(part for part in parts if part)


def _row(task: TaskResults, pairs: list[MethodPair]) -> list[str]:
    means = {name: fmean(task.models[name].values(task.primary)) for name in task.training}
    top = max(means, key=means.__getitem__)
    ties = tied(task.name, top, pairs)
    seconds = {
        name: mean_cost(task.training[name], COSTS["seconds"]) or 0.0 for name in (top, *ties)
    }
    cheapest = min(seconds, key=seconds.__getitem__)
    read = mean_cost(task.training[cheapest], COSTS["teacher_tokens"])
    cells = [
        _scored(task, top),
        _names(ties, [m for m in means if m != top]),
        _scored(task, cheapest),
    ]
    return [task.name, *cells, number(seconds[cheapest], 1), number(read)]


def _over_all(results: ExperimentResults, pairs: list[MethodPair]) -> str:
    """The one or two methods that are most often better less often worse, where others are not."""
    counts = {method: win_count(pairs, method) for method in results.methods}
    net = {method: count.wins - count.losses for method, count in counts.items()}
    leading = [method for method in net if net[method] == max(net.values())]
    if len(leading) > 2 or len(leading) == len(net):
        return "Over all tasks no method stands out in the comparisons of all pairs."
    told = [
        f"`{name}` is better in {count.wins} of {count.wins + count.ties + count.losses}, tied in "
        f"{count.ties}, worse in {count.losses}"
        for name, count in ((name, counts[name]) for name in leading)
    ]
    who = " and ".join(f"`{name}`" for name in leading)
    verb = "stands" if len(leading) == 1 else "stand"
    return f"Over all tasks {who} {verb} out in the comparisons of all pairs: {'; '.join(told)}."


def tied(task: str, method: str, pairs: list[MethodPair]) -> list[str]:
    """The methods that a verdict calls a tie with this one, in the order of the run."""
    others = []
    for pair in pairs:
        both = (pair.verdict.method, pair.verdict.other)
        if pair.task == task and method in both and pair.verdict.word == TIE:
            others.append(both[1] if both[0] == method else both[0])
    return others


def _scored(task: TaskResults, method: str) -> str:
    score = values_text(task.models[method].values(task.primary))
    return f"`{method}` {score.replace(' ', NO_BREAK)}"


def _names(names: list[str], others: list[str]) -> str:
    """Those of the others, or all but a few."""
    rest = [name for name in others if name not in names]
    if len(names) > MOST_NAMES and len(rest) <= MOST_NAMES:
        return "all others" + (f" but {_listed(rest)}" if rest else "")
    return _listed(names) or "none"


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _sweep(name: str, sweep: SweepRuns) -> str:
    """The ends of a sweep by the validation metric; one line per task."""
    lines = []
    for task, values in sweep.runs.items():
        means = {
            value: fmean(run.validation.metric for run in runs.values())
            for value, runs in values.items()
        }
        high, low = max(means, key=means.__getitem__), min(means, key=means.__getitem__)
        seeds = len(sweep.seeds)
        lines.append(
            f"- `{sweep.setting}` of `{sweep.method}` on {task} (sweep `{name}`, validation, "
            f"{seeds} seed{'s' if seeds > 1 else ''}, not tested): highest at `{high}` "
            f"({means[high]:.1f}), lowest at `{low}` ({means[low]:.1f})."
        )
    return "\n".join(lines)
