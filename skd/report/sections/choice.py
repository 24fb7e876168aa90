"""What to use: the answer in words, then per task the method, what is as good, and the cost.

Rests on `skd.report.verdicts.choice`. Calls nothing "best".
"""

from __future__ import annotations

from collections.abc import Sequence

from skd.report.reading.experiment import ExperimentResults, TaskResults
from skd.report.sections.cells import (
    codes,
    estimate_text,
    listed,
    number,
    points_text,
    table,
    values_text,
)
from skd.report.sections.costs import COSTS, mean_cost
from skd.report.sections.words import no_verdict
from skd.report.verdicts.choice import Choice, good_everywhere, seconds_of
from skd.report.verdicts.evidence import Evidence

MOST_NAMES = 5  # in a cell, where a few exceptions say as much
NO_BREAK = "\u00a0"


def section(results: ExperimentResults, evidence: Evidence) -> str:
    choices = evidence.choices
    if len(results.methods) == 1:
        return f"Nothing to choose from: the run has `{results.methods[0]}` alone."
    if not evidence.possible:
        means = listed([f"`{each.top}` on {each.task.name}" for each in choices])
        why = no_verdict(results, evidence.of(results.tasks[0].name))
        return f"**Nothing is recommended.** {why}. The highest scores: {means}."
    margin = points_text(evidence.margin)
    parts = [
        f"{_by_task(choices, margin)} {_over_all(results, evidence, margin)}"
        f"{_paired(results, choices)}",
        _table(choices),
        f"*Use*: the cheapest of the methods that are not inferior; where there is none, the "
        f"highest mean. *Not inferior*: by a test against the best method, whichever it is (Hsu), "
        f"the best leads by less than {margin}. *Seconds*, *teacher tokens*: the training of one "
        "student.",
    ]
    return "\n\n".join(parts)


def _by_task(choices: Sequence[Choice], margin: str) -> str:
    sentences = []
    if decided := [each for each in choices if each.cheapest]:
        sentences.append(f"**Use {_where(decided)}.**")
    if rest := [each for each in choices if not each.cheapest]:
        places = listed([each.task.name for each in rest])
        sentences.append(
            f"**The best method on {places} is undecided. The highest mean: {_where(rest)}.** No "
            f"method there is shown to be within {margin} of the best."
        )
        possible = [m for m in rest[0].may_be_best if all(m in e.may_be_best for e in rest)]
        if len(rest) > 1 and possible:
            sentences.append(f"Not excluded on any of these: {codes(possible)}.")
    return " ".join(sentences)


def _where(choices: Sequence[Choice]) -> str:
    """`skd` on translation and `seq_kd` on summarization and arithmetic"""
    where: dict[str, list[str]] = {}
    for each in choices:
        where.setdefault(each.use, []).append(each.task.name)
    return listed([f"`{method}` on {listed(tasks)}" for method, tasks in where.items()])


def _over_all(results: ExperimentResults, evidence: Evidence, margin: str) -> str:
    """One method for all tasks; empty for a run of one task."""
    if len(results.tasks) == 1:
        return ""
    good = good_everywhere(evidence.choices)
    row = next(r for r in evidence.overall if not good or r.method == good[0])
    cost = sum(seconds_of(task, row.method) for task in results.tasks)
    closed = ""
    if row.closed is not None:
        closed = f" closes {estimate_text(row.closed, ' %')} of the teacher's lead and"
    if good:
        others = f" The same holds for {codes(good[1:])}." if len(good) > 1 else ""
        return (
            f"One method for all tasks: `{row.method}`{closed} takes {number(cost)} seconds for a "
            f"student of each task; on every task the best leads it by less than {margin}.{others}"
        )
    none = f"One method for all tasks: none is shown to be within {margin} of the best everywhere"
    if row.closed is None:  # nothing orders the methods over all tasks
        return f"{none}."
    return (
        f"{none}; `{row.method}`{closed} takes {number(cost)} seconds for a student of each task."
    )


def _paired(results: ExperimentResults, choices: Sequence[Choice]) -> str:
    """What a reader must know of a method that is pointed to and trains on more than others."""
    training = results.tasks[0].training
    used = dict.fromkeys(each.use for each in choices)
    paired = [method for method in used if training[method].method.paired]
    if not paired:
        return ""
    verb = "trains" if len(paired) == 1 else "train"
    return f" {codes(paired)} {verb} on two responses for every prompt."


def _table(choices: Sequence[Choice]) -> str:
    header = ["task", "use", "not inferior to the best", "may be the best", "seconds"]
    rows = [
        [
            each.task.name,
            _scored(each.task, each.use) + ("" if each.cheapest else ", undecided"),
            _names(each.good, each.task),
            _names(each.may_be_best, each.task),
            number(seconds_of(each.task, each.use), 1),
            number(mean_cost(each.task.training[each.use], COSTS["teacher_tokens"])),
        ]
        for each in choices
    ]
    return table([*header, "teacher tokens"], rows, text_columns=4)


def _scored(task: TaskResults, method: str) -> str:
    score = values_text(task.models[method].values(task.primary))
    return f"`{method}` {score.replace(' ', NO_BREAK)}"


def _names(names: Sequence[str], task: TaskResults) -> str:
    """Those methods, or all but a few."""
    rest = [name for name in task.training if name not in names]
    if len(names) > MOST_NAMES and len(rest) <= MOST_NAMES:
        return "all" + (f" but {_listed(rest)}" if rest else "")
    return _listed(names) or "none is shown to be"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
