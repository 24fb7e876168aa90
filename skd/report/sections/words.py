"""The conclusions in words, computed from the verdicts; no winner is expected.

"wins", "better", "equal" and "best" appear only where a verdict says so. What is undecided is
called so, with the smallest lead that could have been seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from skd.report.reading.experiment import (
    INSTRUCT_START,
    SFT_START,
    TEACHER_ROW,
    ExperimentResults,
)
from skd.report.sections.cells import TITLES, codes, listed, points_text, values_text
from skd.report.verdicts.comparison import Word
from skd.report.verdicts.evidence import Evidence
from skd.report.verdicts.relations import baselines, same_start, start_of
from skd.report.verdicts.tables import Against, VerdictTable

MOST_NAMES = 2  # in the headline, per task and word
START_TITLES = {"sft": "SFT start", "instruct": "instruct start"}
RELATIONS = {
    Word.BETTER: "better than",
    Word.EQUAL: "equal to",
    Word.UNDECIDED: "undecided against",
    Word.WORSE: "worse than",
}


def meaning(margin: float) -> str:
    """What the four words mean, for readers who have not studied statistics."""
    return (
        "*Better* and *worse* mean that the difference is too large to be the luck of training "
        "seeds or test examples: were all methods the same, fewer than 1 in 20 columns (one metric "
        f"of one task) would hold any such word. *Equal* means that any difference is below "
        f"{points_text(margin)} (`report.margin`) by the same standard; *undecided* means that "
        "neither was shown, which more seeds can change, and is no sign of equality."
    )


def no_verdict(results: ExperimentResults, table: VerdictTable) -> str:
    """Why a run can decide nothing."""
    count = len(results.seeds)
    if count >= table.runs_needed:
        return "The test examples are too few for a verdict"
    seeds = "One seed says" if count == 1 else f"{count} seeds say"
    return (
        f"{seeds} too little about the spread between training runs: a verdict takes "
        f"{table.runs_needed} seeds"
    )


def headline(results: ExperimentResults, evidence: Evidence) -> str:
    """One sentence over all tasks: where the reference is better than every baseline."""
    reference = evidence.reference
    if reference not in results.methods:
        return (
            f"**No verdict: `{reference}` (report.reference_method) is not among the methods of "
            "this run.**"
        )
    judged = [evidence.of(task.name) for task in results.tasks if baselines(task, reference)]
    if not judged:
        return f"**No verdict: `{reference}` has no baseline from the same start in this run.**"
    if not evidence.possible:
        return f"**No verdict. {no_verdict(results, judged[0])}.**"
    wins = [table.task.name for table in judged if _wins(table)]
    short = [table for table in judged if table.task.name not in wins]
    if not short:
        where = "on every task" if len(wins) > 1 else f"on {wins[0]}"
        return f"**`{reference}` wins {where}: it is better than every baseline from its start.**"
    missed = listed([_shortfall(table) for table in short])
    if wins:
        return f"**`{reference}` wins on {listed(wins)}. It does not win on {missed}.**"
    opening = "does not win on any task: not on" if len(short) > 1 else "does not win on"
    return f"**`{reference}` {opening} {missed}.**"


def _wins(table: VerdictTable) -> bool:
    against = table.planned[0]
    rivals = baselines(table.task, against.reference)
    return against.among(rivals, Word.BETTER) == rivals


def _shortfall(table: VerdictTable) -> str:
    """`arithmetic (worse than a; undecided against 5 of 8 baselines)`: what keeps it from it."""
    against = table.planned[0]
    rivals = baselines(table.task, against.reference)
    parts = [
        f"{RELATIONS[word]} {_few(others, len(rivals))}"
        for word in (Word.WORSE, Word.EQUAL, Word.UNDECIDED)
        if (others := against.among(rivals, word))
    ]
    return f"{table.task.name} ({'; '.join(parts)})"


def _few(names: Sequence[str], of: int) -> str:
    """Names where a headline can hold them, else their number; the names stand in the details."""
    if len(names) <= MOST_NAMES:
        return codes(names)
    return f"all {of} baselines" if len(names) == of else f"{len(names)} of {of} baselines"


def task_words(table: VerdictTable, against: Against) -> str:
    """One paragraph per task and reference."""
    task, reference = table.task, against.reference
    start = start_of(task, reference)
    peers = same_start(task, reference)
    rivals = baselines(task, reference)
    variants = [name for name in peers if name not in rivals]
    untrained = INSTRUCT_START if start == "instruct" else SFT_START
    parts = [
        f"**{task.name}**, {START_TITLES[start]} ({TITLES[task.primary]}): "
        f"`{reference}` {values_text(task.models[reference].values(task.primary))}; teacher "
        f"{values_text(task.models[TEACHER_ROW].values(task.primary))}, untrained student "
        f"{values_text(task.models[untrained].values(task.primary))}."
    ]
    if table.possible:
        parts += [
            _relation("Against the baselines: ", against, rivals),
            _relation("Against the other interleaved methods: ", against, variants),
            _leader(table, against, peers),
        ]
    return " ".join(part for part in parts if part)


def _relation(opening: str, against: Against, names: Sequence[str]) -> str:
    parts = []
    for word, relation in RELATIONS.items():
        if others := against.among(names, word):
            parts.append(f"{relation} {codes(others)}")
            if word == Word.UNDECIDED:
                lead = f"{against.smallest_lead:.1f} points"
                parts[-1] += f" (a lead of {lead} is found in 80 % of repetitions)"
    return f"{opening}{'; '.join(parts)}." if parts else ""


def _leader(table: VerdictTable, against: Against, peers: Sequence[str]) -> str:
    task, reference = table.task, against.reference
    means = {name: fmean(task.models[name].values(task.primary)) for name in (reference, *peers)}
    top = max(means, key=means.__getitem__)
    if not peers:
        return ""
    if len(set(means.values())) == 1:
        return "All methods from this start have the same mean."
    if top != reference:
        word = table.words[top, reference]
        return (
            f"Highest mean from this start: `{top}` ({means[top]:.1f}), {RELATIONS[word]} "
            f"`{reference}`."
        )
    if against.among(peers, Word.BETTER) == list(peers):
        return f"It is the best of the {len(means)} methods from this start."
    return "It has the highest mean from this start, but is not better than all."
