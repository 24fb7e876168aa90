"""`reports/report.md`: what a reader needs to choose, on one page. The details are linked.

Puts parts in order. Numbers, words and tables come from elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from skd.report.reading.experiment import ExperimentResults
from skd.report.reading.parts import Part
from skd.report.sections import choice, failures, provenance, tables, warnings, words
from skd.report.sections.cells import LEGEND, duration, figure, points_text, spread_words
from skd.report.sections.provenance import Provenance
from skd.report.verdicts.evidence import Evidence

FOLDER = "details"
SHEETS = (
    "scores", "comparisons", "overall", "costs", "failures", "sweeps", "fairness", "students",
    "proposals", "course", "drafts", "test_sets", "sacrebleu",
)  # fmt: skip


def report(
    results: ExperimentResults,
    evidence: Evidence,
    parts: Sequence[Part],
    source: Provenance,
    figures: Sequence[str],
    pages: Mapping[str, str],
) -> str:
    """The page. `figures` are names in `figures/`; `pages`: name in `details/` -> Markdown."""
    sections = [
        "# Report: which distillation method to use",
        _opening(results, source),
        f"## What to use\n\n{choice.section(results, evidence)}",
        _question(results, evidence, figures),
        _main(results, evidence),
        _warnings(results, evidence),
        _overall(results, evidence),
        _cost(figures),
        f"## Known failures\n\n{failures.summary(evidence.failures)}",
        _reproduce(results, parts, source),
        _more(pages),
    ]
    return "\n\n".join(part for part in sections if part) + "\n"


def _opening(results: ExperimentResults, source: Provenance) -> str:
    methods, tasks, seeds = (
        f"{len(items)} {noun}" + ("s" if len(items) > 1 else "")
        for items, noun in (
            (results.methods, "method"),
            (results.tasks, "task"),
            (results.seeds, "seed"),
        )
    )
    return (
        f"{methods}, {tasks}, {seeds}: each method distils the same teacher into the same "
        f"student ([what each of them is]({FOLDER}/methods.md)). Written by `{source.command}` "
        "from the files of the run."
    )


def _question(results: ExperimentResults, evidence: Evidence, figures: Sequence[str]) -> str:
    reference = evidence.reference
    caption = (
        f"Difference of each method to {reference} with the interval that all comparisons of a "
        f"task hold at once; grey band: {points_text(evidence.margin)}, within which methods count "
        "as equal"
    )
    where = " [All comparisons](details/comparisons.md)." if evidence.planned else ""
    parts = [
        f"## Does `{reference}` win?\n\n{words.headline(results, evidence)}{where}",
        figure("comparison", caption, figures),
    ]
    return "\n\n".join(part for part in parts if part)


def _main(results: ExperimentResults, evidence: Evidence) -> str:
    marks = ""
    if evidence.possible and evidence.planned:
        marks = f" Against `{evidence.reference}`: {LEGEND}."
    parts = [
        f"## Results\n\nTest split, greedy decoding, {spread_words(len(results.seeds))}.{marks}",
        tables.main_table(results, evidence),
        "*valid %*: outputs that are, word for word, one of the answers that the source knows, "
        "worked steps included; a right answer in other words is none. "
        "*Seconds*: training one student on each task. *Smallest lead seen*: the points by which "
        "a method must lead for its column to find it in 80 % of repetitions.",
        words.meaning(evidence.margin) if evidence.possible else "",
    ]
    return "\n\n".join(part for part in parts if part)


def _warnings(results: ExperimentResults, evidence: Evidence) -> str:
    text = warnings.section(results, evidence)
    return f"## Read with care\n\n{text}" if text else ""


def _overall(results: ExperimentResults, evidence: Evidence) -> str:
    return (
        "## Over all tasks\n\n*Lead closed*: percent of the way from the untrained student (SFT "
        "start) to the teacher, mean over tasks, then by task; below 0 is worse than that student, "
        "above 100 better than the teacher; a dash: on some task the teacher's lead is in doubt. "
        "In brackets: 95 % intervals by a bootstrap over seeds and examples within each task. The "
        "last column: pairs of training runs that the reference wins.\n\n"
        f"{tables.overall_table(results, evidence)}"
    )


def _cost(figures: Sequence[str]) -> str:
    shown = figure(
        "cost", "Score against the seconds of training; the line joins what nothing beats", figures
    )
    return f"## Score against cost\n\n{shown}" if shown else ""


def _reproduce(results: ExperimentResults, parts: Sequence[Part], source: Provenance) -> str:
    whole = duration(sum(part.took.seconds for part in parts))
    return (
        f"## How to reproduce\n\n{provenance.what_ran(results, parts, source)}\n\n"
        f"The stages took {whole} together ([by stage](details/provenance.md))."
    )


def _more(pages: Mapping[str, str]) -> str:
    links = [
        f"- [{text.splitlines()[0].lstrip('# ')}]({FOLDER}/{name}.md)"
        for name, text in pages.items()
    ]
    sheets = ", ".join(f"[{name}](tables/{name}.csv)" for name in SHEETS)
    links += [
        f"- Every number: [results.csv](results.csv). Tables: {sheets}. Behind the curves: "
        "`logs/distill/`.",
        "- [Model cards](cards). All on one page: [report.html](report.html).",
    ]
    return "## Details\n\n" + "\n".join(links)
