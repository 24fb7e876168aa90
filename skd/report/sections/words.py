"""The conclusions in words, computed from the verdicts; no winner is expected.

"wins", "better" and "best" appear only where `skd.report.verdicts.compare` says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from skd.report.reading.experiment import (
    INSTRUCT_START,
    SFT_START,
    TEACHER_ROW,
    ExperimentResults,
    TaskResults,
)
from skd.report.sections.tables import TITLES, values_text
from skd.report.verdicts.compare import BETTER, TIE, WORSE, Family, baselines, same_start, start_of

MOST_NAMES = 2  # in the headline, per task and word
START_TITLES = {"sft": "SFT start", "instruct": "instruct start"}


def listed(items: Sequence[str]) -> str:
    """a · a and b · a, b and c"""
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def codes(names: Sequence[str]) -> str:
    return listed([f"`{name}`" for name in names])


def headline(results: ExperimentResults, reference: str, families: dict[str, list[Family]]) -> str:
    """One sentence over all tasks: where the reference is better than every baseline."""
    if reference not in results.methods:
        return (
            f"**No verdict: `{reference}` (report.reference_method) is not among the methods of "
            "this run.** The table shows means only; nothing was tested."
        )
    judged = [task for task in results.tasks if families[task.name] and baselines(task, reference)]
    if not judged:
        return f"**No verdict: `{reference}` has no baseline from the same start in this run.**"
    wins = [task.name for task in judged if _wins(task, families[task.name][0])]
    short = [families[task.name][0] for task in judged if task.name not in wins]
    if not short:
        where = "on every task" if len(wins) > 1 else f"on {wins[0]}"
        return f"**`{reference}` wins {where}: it is better than every baseline from its start.**"
    missed = listed([_shortfall(family) for family in short])
    if wins:
        return f"**`{reference}` wins on {listed(wins)}. It does not win on {missed}.**"
    opening = "does not win on any task: not on" if len(short) > 1 else "does not win on"
    return f"**`{reference}` {opening} {missed}.**"


def _wins(task: TaskResults, family: Family) -> bool:
    rivals = baselines(task, family.reference)
    return family.among(rivals, BETTER) == rivals


def _shortfall(family: Family) -> str:
    """`arithmetic (worse than a; tied with 5 of 8 baselines)`: those it is not better than."""
    rivals = baselines(family.task, family.reference)
    words = {WORSE: "worse than", TIE: "tied with"}
    parts = [
        f"{words[word]} {_few(others, len(rivals))}"
        for word in words
        if (others := family.among(rivals, word))
    ]
    return f"{family.task.name} ({'; '.join(parts)})"


def _few(names: Sequence[str], of: int) -> str:
    """Names where a headline can hold them, else their number; the names stand below it."""
    if len(names) <= MOST_NAMES:
        return codes(names)
    return f"all {of} baselines" if len(names) == of else f"{len(names)} of {of} baselines"


def task_words(family: Family) -> str:
    """One paragraph per task and reference."""
    task, reference = family.task, family.reference
    start = start_of(task, reference)
    peers = same_start(task, reference)
    rivals = baselines(task, reference)
    variants = [name for name in peers if name not in rivals]
    untrained = INSTRUCT_START if start == "instruct" else SFT_START
    parts = [
        f"**{task.name}**, {START_TITLES[start]} ({TITLES[task.primary]}): "
        f"`{reference}` {values_text(task.models[reference].values(task.primary))}; teacher "
        f"{values_text(task.models[TEACHER_ROW].values(task.primary))}, untrained student "
        f"{values_text(task.models[untrained].values(task.primary))}.",
        _relation("Against the baselines: ", family, rivals),
        _relation("Against the other interleaved methods: ", family, variants),
        _leader(family, peers),
    ]
    return " ".join(part for part in parts if part)


def _relation(opening: str, family: Family, names: Sequence[str]) -> str:
    words = {BETTER: "better than", TIE: "tied with", WORSE: "worse than"}
    parts = [
        f"{words[word]} {codes(others)}" for word in words if (others := family.among(names, word))
    ]
    return f"{opening}{'; '.join(parts)}." if parts else ""


def _leader(family: Family, peers: Sequence[str]) -> str:
    task, reference = family.task, family.reference
    means = {name: fmean(task.models[name].values(task.primary)) for name in (reference, *peers)}
    top = max(means, key=means.__getitem__)
    if peers and len(set(means.values())) == 1:
        return "All methods from this start have the same mean."
    if top != reference:
        word = "a tie with" if top in family.among(peers, TIE) else "better than"
        return f"Highest mean from this start: `{top}` ({means[top]:.1f}), {word} `{reference}`."
    tied = family.among(peers, TIE)
    if tied:
        return f"It has the highest mean, but none is best: {codes(tied)} cannot be told from it."
    return f"It is the best of the {len(means)} methods from this start." if peers else ""


def budget_words(task: TaskResults) -> str:
    """Whether all methods had equal budgets, read from the files of the runs."""
    budgets = {method: training.budget for method, training in task.training.items()}
    short = [
        f"`{method}` (seed {seed}: {run.steps} steps)"
        for method, training in task.training.items()
        for seed, run in training.runs.items()
        if run.steps != training.budget.steps
    ]
    dropped = sum(
        run.dropped_prompts for training in task.training.values() for run in training.runs.values()
    )
    first = next(iter(budgets.values()))
    if all(budget == first for budget in budgets.values()):
        text = (
            f"{task.name}: equal. Every student had {first.steps:,} steps of {first.batch_size} "
            f"prompts, {first.prompts:,} prompts in all"
        )
    else:
        parts = [
            f"`{method}` {budget.steps} steps × {budget.batch_size}, {budget.prompts:,} prompts"
            for method, budget in budgets.items()
        ]
        text = f"{task.name}: NOT equal: {'; '.join(parts)}"
    if short:
        text += f". Ended early: {', '.join(short)}"
    return text + (f". Dropped for length: {dropped:,} prompts." if dropped else ".")
