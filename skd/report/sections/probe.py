"""How far student and teacher agree before, during and after training, and drafts: the tables.

Markdown for the report, rows for CSV.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from statistics import fmean
from typing import Any

from skd.report.reading.experiment import ExperimentResults, MethodTraining
from skd.report.sections.cells import NONE, details, number, row_name, table
from skd.results.analyses import Agreement, DraftWorth, JudgedProposals, ProbeResult

GROUND_TRUTH, STUDENT, INTERLEAVED = "ground_truth", "student", "interleaved"


# ------------------------------------------------------------------- agreement
def agreement(probe: ProbeResult) -> str:
    title = "## Agreement with the teacher"
    if probe.not_measured is not None:
        return f"{title}\n\nNot measured: {probe.not_measured}."
    parts = [
        f"{title}\n\nSeed {probe.seed}, before and after training. "
        "Prefixes from the ground truth, from the student's own samples, and from interleaved "
        f"sampling with K = {probe.k}. *KL*: teacher ‖ student, nats per token. *Spearman*: "
        "over the teacher's 20 most likely tokens. *Rank*: the teacher's rank of the student's own "
        "tokens (0: its most likely). *Along*: by place in the response. The second table is of "
        "the student's proposals in interleaved sampling: percent of them at each rank, and "
        "percent accepted."
    ]
    for task, models in probe.tasks.items():
        agreed = [
            [row_name(name), *_agreement_cells(model.agreement)] for name, model in models.items()
        ]
        judged = [
            [row_name(name), *_proposal_cells(model.proposals)] for name, model in models.items()
        ]
        buckets = _bucket_names(next(iter(models.values())).proposals.ranks)
        tables = (
            table(["model", *_AGREEMENT], agreed),
            table(["proposals of", *(f"rank {b}" for b in buckets), "accepted % along"], judged),
        )
        parts.append(details(task, "\n\n".join(tables)))
    return "\n\n".join(parts)


_AGREEMENT = (
    "KL, ground truth",
    "KL, student",
    "KL, interleaved",
    "Spearman, student",
    "same first %, student",
    "rank 50 / 90 / 99 %",
    "KL along, student",
)


def _agreement_cells(by_prefix: Mapping[str, Agreement]) -> Iterable[str]:
    for kind in (GROUND_TRUTH, STUDENT, INTERLEAVED):
        yield f"{by_prefix[kind].kl:.2f}"
    own = by_prefix[STUDENT]
    yield f"{own.spearman:.2f}"
    yield f"{own.first:.0f}"
    yield " / ".join(f"{value:.0f}" for value in own.ranks.values())
    yield " · ".join(f"{start}+: {kl:.2f}" for start, (kl, _) in own.by_position.items())


def _proposal_cells(judged: JudgedProposals) -> Iterable[str]:
    yield from (f"{share:.1f}" for share in judged.ranks.values())
    yield " · ".join(f"{start}+: {share:.0f}" for start, share in judged.by_position.items())


def _bucket_names(starts: Iterable[str]) -> list[str]:
    """First ranks -> `0`, `1`, `2–4`, …, `100+`."""
    first = [int(start) for start in starts]
    named = [str(a) if b == a + 1 else f"{a}–{b - 1}" for a, b in pairwise(first)]
    return [*named, f"{first[-1]}+"]


PROPOSAL_COLUMNS = ("task", "model", "measure", "from", "percent")


def proposal_rows(probe: ProbeResult) -> Iterable[tuple[Any, ...]]:
    """Percent of the proposals per bucket of ranks; percent accepted per bucket of places."""
    for task, models in probe.tasks.items():
        for name, model in models.items():
            measures = {
                "share_by_rank": model.proposals.ranks,
                "accepted_by_place": model.proposals.by_position,
            }
            for measure, shares in measures.items():
                for start, percent in shares.items():
                    yield task, name, measure, int(start), percent


# ---------------------------------------------------------------------- course
# part: shares of a seed's steps between which its logged values are averaged
PARTS = {"begin": (0.0, 0.1), "middle": (0.4, 0.6), "end": (0.9, 1.0)}
_COURSE = {"acceptance_rate": ("accepted %", 1), "validation_kl": ("validation KL", 3)}
COURSE_COLUMNS = ("task", "method", "part", *_COURSE)


def course(results: ExperimentResults) -> str:
    head = (
        "## Agreement during training\n\nFrom the training logs, means over seeds: the first "
        "tenth of the steps, the fifth around the middle, the last tenth. *Accepted* is known "
        "where responses were sampled, *validation KL* (along the ground truth) where a run was "
        "validated; a dash: not in that part."
    )
    header = ["method", *(f"{title}, {part}" for title, _ in _COURSE.values() for part in PARTS)]
    parts = [head]
    for task in results.tasks:
        rows = [
            [f"`{method}`", *_course_cells(training)]
            for method, training in task.training.items()
            if _measured(training)
        ]
        if rows:
            columns = [c for c in zip(header, *rows, strict=True) if set(c[1:]) != {NONE}]
            shown, *lines = zip(*columns, strict=True)
            parts.append(details(task.name, table(shown, lines)))
    return "\n\n".join(parts) if len(parts) > 1 else ""


def course_rows(results: ExperimentResults) -> Iterable[tuple[Any, ...]]:
    for task in results.tasks:
        for method, training in task.training.items():
            if _measured(training):
                for part in PARTS:
                    yield task.name, method, part, *(_mean_in(training, c, part) for c in _COURSE)


def _course_cells(training: MethodTraining) -> Iterable[str]:
    for column, (_, digits) in _COURSE.items():
        for part in PARTS:
            yield number(_mean_in(training, column, part), digits)


def _measured(training: MethodTraining) -> bool:
    return any(getattr(row, name) is not None for row in training.log for name in _COURSE)


def _mean_in(training: MethodTraining, column: str, part: str) -> float | None:
    """Of the values that were logged in that part of a run."""
    begin, end = PARTS[part]
    last: dict[int, int] = {}
    for row in training.log:
        last[row.seed] = max(last.get(row.seed, 0), row.step)
    known = [
        value
        for row in training.log
        if begin <= (row.step - 0.5) / last[row.seed] <= end
        and (value := getattr(row, column)) is not None
    ]
    return fmean(known) if known else None


# ---------------------------------------------------------------------- drafts
ASSISTED = "assisted"
# Way of drafting -> the plain decoding that it is compared with
_PLAIN = {
    "greedy": "plain_greedy",
    "sampled": "plain_sampled",
    "rejection": "plain_sampled",
    ASSISTED: "plain_greedy",
}
_OURS = ("greedy", "sampled", "rejection")


def drafts(probe: ProbeResult) -> str:
    title = "## The student as a draft for its teacher"
    if probe.not_measured is not None:
        return f"{title}\n\nNot measured: {probe.not_measured}."
    parts = [
        f"{title}\n\nSpeculative decoding, one prompt at a time. "
        "*Tokens per pass*: emitted per teacher pass; plain decoding has 1. *÷ plain speed*: "
        "tokens per CPU second over those of the teacher alone, greedy or sampled, all taking "
        "turns in one process. Greedy outputs were compared with the teacher's own: *equal* counts "
        "those that are the same. Sampled ones share the teacher's noise. *Rejection* is the "
        "standard rule. *Assisted* is transformers' `generate(assistant_model=…)`, greedy."
    ]
    columns = ("accepted %", "tokens per pass", "÷ plain speed")
    header = [
        "model",
        *(f"{way}: {what}" for way in _OURS for what in columns),
        "assisted ÷ plain speed",
        "greedy: equal",
        "assisted: equal",
    ]
    for task, models in probe.tasks.items():
        rows = [[row_name(name), *_draft_cells(model.draft)] for name, model in models.items()]
        reasons = {reason for model in models.values() if (reason := model.draft.assisted_reason)}
        notes = [f"No assisted generation: {reason}" for reason in sorted(reasons)]
        parts.append(details(task, "\n\n".join([table(header, rows), *notes])))
    return "\n\n".join(parts)


def _draft_cells(draft: DraftWorth) -> Iterable[str]:
    for way in _OURS:
        yield number(draft.ways[way].accepted)
        yield number(draft.ways[way].acceptance_length, 2)
        yield number(_against_plain(draft, way), 2)
    yield number(_against_plain(draft, ASSISTED), 2)
    for way in ("greedy", ASSISTED):
        equal = draft.ways[way].equal
        yield NONE if equal is None else f"{equal} of {draft.prompts}"


def _against_plain(draft: DraftWorth, way: str) -> float | None:
    speed, plain = (draft.ways[name].tokens_per_cpu_second for name in (way, _PLAIN[way]))
    return None if speed is None or plain is None else speed / plain


DRAFT_COLUMNS = (
    "task",
    "model",
    "way",
    "prompts",
    "accepted",
    "tokens_per_pass",
    "tokens_per_cpu_second",
    "against_plain",
    "equal_outputs",
)


def draft_rows(probe: ProbeResult) -> Iterable[tuple[Any, ...]]:
    """One row per way of drafting; empty where a way does not count it or was refused."""
    for task, models in probe.tasks.items():
        for name, model in models.items():
            draft = model.draft
            for way in _PLAIN:
                speed = draft.ways[way]
                yield (
                    task,
                    name,
                    way,
                    draft.prompts,
                    speed.accepted,
                    speed.acceptance_length,
                    speed.tokens_per_cpu_second,
                    _against_plain(draft, way),
                    speed.equal,
                )
