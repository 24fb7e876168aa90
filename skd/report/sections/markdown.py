"""`reports/report.md`: the order of its parts. Numbers, words and tables come from elsewhere."""

from __future__ import annotations

from skd.report.reading.analyses import Analyses
from skd.report.reading.experiment import ExperimentResults
from skd.report.reading.parts import Part
from skd.report.sections import choice, crosscheck, provenance, tables, test_sets, words
from skd.report.sections.analyses import section
from skd.report.sections.paper import PAIRS
from skd.report.sections.provenance import Provenance
from skd.report.sections.samples import samples
from skd.report.verdicts.compare import Family
from skd.report.verdicts.evidence import Evidence
from skd.report.verdicts.failures import AWAY, HOME, Failure, checked
from skd.report.verdicts.pairs import MethodPair

MEANING = (
    "A method *wins* on a task where it is better than every baseline that began from the same "
    "start; other interleaved methods are not baselines. *Better* needs three things: p < 0.05 in "
    "the paired randomisation test on the test examples and in a t test over training runs and "
    "examples (the spread between runs pooled over the methods), Holm-corrected over all "
    "comparisons of the table, and a 95 % bootstrap interval over seeds and examples that leaves "
    "out zero. Everything else is a tie."
)


def report(
    results: ExperimentResults,
    analyses: Analyses,
    evidence: Evidence,
    parts: list[Part],
    source: Provenance,
    figures: list[str],
    samples_per_task: int,
) -> str:
    """The whole report. `figures` are names in `figures/`, a .png and a .csv each."""
    reference, families, pairs = evidence.reference, evidence.families, evidence.pairs
    sections = [
        "# Report: speculative knowledge distillation beside its baselines",
        _opening(results, source),
        _conclusion(results, evidence, analyses),
        _main(results, families, reference),
        _figure("comparison", "Primary metric per method with 95 % intervals", figures),
        _failures(results, evidence.failures),
        _records(results, pairs),
        _comparisons(results, families),
        test_sets.section(results, families, reference),
        _metrics(results),
        _curves(results, figures),
        _costs(results),
        section(analyses, results, evidence),
        "## Sample outputs\n\nNot chosen: the first examples, the same for all models.",
        *(samples(task, reference, samples_per_task) for task in results.tasks),
        _paper(results),
        crosscheck.section(evidence.checks, families),
        _provenance(results, parts, source),
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
        f"student. Written by `{source.command}` from the files of the run."
    )


def _conclusion(results: ExperimentResults, evidence: Evidence, analyses: Analyses) -> str:
    """The answer, what to use, then each task and what the words mean."""
    families = evidence.families
    bullets = [
        f"- {words.task_words(family)}" for task in results.tasks for family in families[task.name]
    ]
    seeds = (
        f"{len(results.seeds)} seeds"
        if len(results.seeds) > 1
        else ("one seed, so nothing is known about the spread between training runs")
    )
    sizes = [f"{len(task.rows):,}" for task in results.tasks]
    if len(set(sizes)) == 1:
        examples = f"{sizes[0]} test examples of each task"
    else:
        of_task = zip(sizes, results.tasks, strict=True)
        examples = ", ".join(f"{size} test examples of {task.name}" for size, task in of_task)
    parts = [
        words.headline(results, evidence.reference, families),
        choice.section(results, evidence.pairs, analyses),
        "### Task by task\n\n" + "\n".join(bullets) if bullets else "",
        f"{MEANING} Evidence: {seeds}; {examples}.",
        _not_scored(results),
    ]
    return "## Conclusion\n\n" + "\n\n".join(part for part in parts if part)


def _not_scored(results: ExperimentResults) -> str:
    lines = []
    for task in results.tasks:
        reasons: dict[str, dict[str, None]] = {}
        for model in task.models.values():
            for metric, why in model.not_scored.items():
                reasons.setdefault(metric, {})[why] = None
        for metric, whys in reasons.items():
            title = tables.TITLES.get(metric, metric)
            lines.append(f"{title} on {task.name}: not scored: {'; '.join(whys)}.")
    return "\n".join(f"> {line}<br>" for line in lines)


def _main(results: ExperimentResults, families: dict[str, list[Family]], reference: str) -> str:
    spread = (
        "mean ± 95 % t-interval over seeds"
        if len(results.seeds) > 1
        else ("one value each; interval n/a (one seed)")
    )
    marks = f" Against `{reference}`: ▲ better, = tie, ▼ worse." if any(families.values()) else ""
    return (
        f"## Results\n\nTest split, greedy decoding, percent, {spread}.{marks} *valid %* is the "
        "share of outputs in the set of all valid answers, where the source knows it.\n\n"
        f"{tables.main_table(results, families, reference)}"
    )


def _figure(name: str, caption: str, figures: list[str]) -> str:
    if name not in figures:
        return ""
    return f"![{caption}](figures/{name}.png)\n\n[Its data](figures/{name}.csv)"


def _failures(results: ExperimentResults, failures: list[Failure]) -> str:
    names = f"for every method and task: {', '.join(checked(HOME))}"
    if results.test_sets:
        names += f"; on other test sets, where the task did not show it: {', '.join(checked(AWAY))}"
    title = "## Known failures\n\n"
    if not failures:
        return f"{title}Checked {names}. None was found."
    return f"{title}{tables.failure_table(failures)}\n\nChecked {names}."


def _records(results: ExperimentResults, pairs: list[MethodPair]) -> str:
    if not pairs:
        return ""
    parts = [
        "## Wins, ties and losses\n\nEvery method against every other one by the primary metric, "
        "wins–ties–losses; Holm-corrected over all pairs of a task, so a difference must be "
        "larger here than in the table of one reference. Most net wins first. Methods from the "
        "instruct start began lower.",
        tables.record_table(results, pairs),
    ]
    parts += [
        tables.details(
            f"{task.name}: row against column", tables.matrix_table(results, pairs, task.name)
        )
        for task in results.tasks
    ]
    return "\n\n".join(parts)


def _comparisons(results: ExperimentResults, families: dict[str, list[Family]]) -> str:
    if not any(families.values()):
        return ""
    parts = [
        "## Paired comparisons\n\nDifference = the named method minus the other, per test "
        "example, scores averaged over seeds, in points of the primary metric. *d*: mean over "
        "standard deviation of the per-example differences. The verdict is on the named method; "
        "*seeds to see it*: how many a t test of the seeds' means needs to find "
        "this difference in 80 % of repetitions."
    ]
    for task in results.tasks:
        for family in families[task.name]:
            title = f"{task.name}: `{family.reference}` against the others"
            summary = title.replace(f"`{family.reference}`", f"<code>{family.reference}</code>")
            parts.append(tables.details(summary, tables.comparison_table(family)))
    return "\n\n".join(parts)


def _metrics(results: ExperimentResults) -> str:
    parts = ["## All metrics"]
    for task in results.tasks:
        signatures: dict[str, None] = {}
        for model in task.models.values():
            for metric, signature in model.signatures.items():
                title = tables.TITLES.get(metric, metric)
                signatures[f"- {title}: {tables.plain_text(signature)}"] = None
        body = f"{tables.metric_table(task)}\n\nSignatures:\n\n" + "\n".join(signatures)
        parts.append(tables.details(task.name, body))
    return "\n\n".join(parts)


def _curves(results: ExperimentResults, figures: list[str]) -> str:
    parts = ["## Curves"]
    for task in results.tasks:
        parts.append(_figure(f"curves-{task.name}", f"Training curves, {task.name}", figures))
    parts.append(
        "The objectives differ (cross-entropy, divergence, both), so compare training losses "
        "within a method; validation KL and the validation metric compare across methods. "
        "Training losses are running means over 5 % of a run."
    )
    parts.append(
        _figure("convergence", "Validation metric over steps, tokens and seconds", figures)
    )
    parts.append(_figure("acceptance", "Acceptance rate while training", figures))
    return "\n\n".join(part for part in parts if part)


def _costs(results: ExperimentResults) -> str:
    parts = [
        "## Cost\n\nOne student, mean over seeds. *Trained tokens* entered the loss, *sampled "
        "tokens* came from the student, *teacher tokens* passed through the teacher. Seconds are "
        "of processor time where a CPU trained, of wall time on an accelerator."
    ]
    parts += [tables.details(task.name, tables.cost_table(task)) for task in results.tasks]
    parts.append(
        "### Where the time goes\n\nShares of one student's seconds, mean over seeds. *Teacher*: "
        "its passes, those that verify proposals included. *Peak MiB* above is the process's "
        "resident memory on a CPU, libraries included, and allocated memory on an accelerator."
    )
    parts += [tables.details(task.name, tables.overhead_table(task)) for task in results.tasks]
    budgets = "\n".join(f"- {words.budget_words(task)}" for task in results.tasks)
    return "\n\n".join([*parts, f"Budgets, checked from the files of the runs:\n\n{budgets}"])


def _paper(results: ExperimentResults) -> str:
    return (
        "## Beside the paper\n\nFigures in italics are **reported, on other models** and other "
        f"data (arXiv 2410.11325, Table 1, one seed; {' / '.join(PAIRS)}): they show the paper's "
        "order of methods and cannot be compared with ours in size.\n\n"
        f"{provenance.paper_table(results)}"
    )


def _provenance(results: ExperimentResults, parts: list[Part], source: Provenance) -> str:
    sections = [
        "## What ran",
        provenance.what_ran(results, parts, source),
        provenance.data_table(results),
        provenance.pair_table(results),
        "Wall time as each stage measured it, the longest first; *parts* are its metrics files. "
        "Stages may have run side by side; `evaluate` adds up its models, which did. `report` and "
        "`export` are not in it.",
        provenance.wall_time(parts),
        "Every number: [results.csv](results.csv). The tables: [scores](tables/scores.csv), "
        "[comparisons](tables/comparisons.csv), [costs](tables/costs.csv), "
        "[failures](tables/failures.csv), [sweeps](tables/sweeps.csv), "
        "[equal budgets](tables/fairness.csv), [students](tables/students.csv), "
        "[proposals](tables/proposals.csv), [course](tables/course.csv), "
        "[drafts](tables/drafts.csv), "
        "[other test sets](tables/test_sets.csv), "
        "[sacrebleu's tests](tables/sacrebleu.csv). "
        "Behind the curves: `logs/distill/`. "
        "Model cards: [cards](cards). As one page: [report.html](report.html).",
    ]
    return "\n\n".join(part for part in sections if part)
