"""`reports/details/`: everything that the main page leaves out, a page for each subject."""

from __future__ import annotations

from collections.abc import Sequence

from skd.report.reading.analyses import Analyses
from skd.report.reading.experiment import ExperimentResults
from skd.report.reading.parts import Part
from skd.report.sections import (
    analyses,
    comparisons,
    costs,
    crosscheck,
    failures,
    methods,
    provenance,
    tables,
    test_sets,
)
from skd.report.sections.cells import TITLES, details, figure, plain_text
from skd.report.sections.paper import PAIRS
from skd.report.sections.samples import samples
from skd.report.verdicts.evidence import Evidence

FIGURES = "../figures"


def pages(
    results: ExperimentResults,
    found: Analyses,
    evidence: Evidence,
    parts: Sequence[Part],
    figures: Sequence[str],
    samples_per_task: int,
) -> dict[str, str]:
    """Name -> Markdown whose first line is the title; a subject without content has no page."""
    texts = {
        "methods": methods.page(results),
        "comparisons": comparisons.page(results, evidence),
        "scores": _scores(results),
        "curves-and-cost": _curves_and_cost(results, figures),
        "analyses": analyses.page(found, results, evidence),
        "test-sets": test_sets.page(results, evidence),
        "samples": _samples(results, evidence.reference, samples_per_task),
        "crosscheck": crosscheck.page(evidence),
        "failures": failures.page(results, evidence.failures),
        "provenance": _provenance(results, parts),
    }
    return {name: f"{text}\n" for name, text in texts.items() if text}


def _scores(results: ExperimentResults) -> str:
    parts = ["# All metrics, and the paper's own numbers"]
    for task in results.tasks:
        signatures: dict[str, None] = {}
        for model in task.models.values():
            for metric, signature in model.signatures.items():
                title = TITLES.get(metric, metric)
                signatures[f"- {title}: {plain_text(signature)}"] = None
        body = f"{tables.metric_table(task)}\n\nSignatures:\n\n" + "\n".join(signatures)
        parts.append(f"## {task.name}\n\n{body}")
    parts.append(
        "## Beside the paper\n\nFigures in italics are **reported, on other models** and other "
        f"data (arXiv 2410.11325, Table 1, one seed; {' / '.join(PAIRS)}): they show the paper's "
        "order of methods and cannot be compared with ours in size.\n\n"
        f"{provenance.paper_table(results)}"
    )
    return "\n\n".join(parts)


def _curves_and_cost(results: ExperimentResults, figures: Sequence[str]) -> str:
    def drawn(name: str, caption: str) -> str:
        return figure(name, caption, figures, FIGURES)

    parts = [
        "# Curves and cost",
        "## How fast methods get better",
        drawn("convergence", "Validation metric over steps, tokens and seconds"),
        *(
            details(f"{task.name}: every method", shown)
            for task in results.tasks
            if (shown := drawn(f"methods-{task.name}", f"Validation metric, {task.name}"))
        ),
        "## Training curves",
        *(drawn(f"curves-{task.name}", f"Training curves, {task.name}") for task in results.tasks),
        "The objectives differ (cross-entropy, divergence, both), so compare training losses "
        "within a method; validation KL and the validation metric compare across methods. "
        "Training losses are running means over 5 % of a run.",
        drawn("acceptance", "Acceptance rate while training"),
        "## Cost\n\nOne student, mean over seeds. *Trained tokens* entered the loss, *sampled "
        "tokens* came from the student, *teacher tokens* passed through the teacher. Seconds are "
        "of processor time where a CPU trained, of wall time on an accelerator.",
        *(details(task.name, costs.cost_table(task)) for task in results.tasks),
        "## Where the time goes\n\nShares of one student's seconds, mean over seeds. *Teacher*: "
        "its passes, those that verify proposals included. *Peak MiB* above is the process's "
        "resident memory on a CPU, libraries included, and allocated memory on an accelerator.",
        *(details(task.name, costs.overhead_table(task)) for task in results.tasks),
        "## Budgets\n\nChecked from the files of the runs:\n\n"
        + "\n".join(f"- {costs.budget_words(task)}" for task in results.tasks),
    ]
    return "\n\n".join(part for part in parts if part)


def _samples(results: ExperimentResults, reference: str, count: int) -> str:
    parts = ["# Sample outputs\n\nNot chosen: the first examples, the same for all models."]
    parts += [samples(task, reference, count) for task in results.tasks]
    return "\n\n".join(parts)


def _provenance(results: ExperimentResults, parts: Sequence[Part]) -> str:
    return "\n\n".join(
        (
            "# Data, models and time",
            provenance.data_table(results),
            provenance.pair_table(results),
            "Wall time as each stage measured it, the longest first; *parts* are its metrics "
            "files. Stages may have run side by side; `evaluate` adds up its models, which did. "
            "`report` and `export` are not in it.",
            provenance.wall_time(parts),
        )
    )
