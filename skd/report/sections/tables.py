"""Markdown cells and tables, and the numbers in them. Knows no report structure.

Text from data and models is written as HTML entities where GitHub would read markup: a
dialogue's `#Person1#`, a price's `$` or a stray `|` must stay what they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from skd.report.reading.experiment import (
    INSTRUCT_START,
    SFT_START,
    STARTS,
    TEACHER_ROW,
    ExperimentResults,
    MethodTraining,
    TaskResults,
)
from skd.report.verdicts.compare import BETTER, TIE, WORSE, Family
from skd.report.verdicts.failures import Failure
from skd.report.verdicts.pairs import OPPOSITE, MethodPair, win_count
from skd.report.verdicts.statistics import MOST_SEEDS, Interval, seed_interval
from skd.results.runs import TrainedRun

TITLES = {
    "sentence_chrf": "sentence chrF",
    "chrf": "corpus chrF",
    "bleu": "BLEU",
    "comet": "COMET",
    "rouge_1": "ROUGE-1",
    "rouge_2": "ROUGE-2",
    "rouge_l": "ROUGE-L",
    "exact_match": "exact answer %",
    "valid": "valid %",
    "stopped": "stopped %",
}
NAMES = {
    TEACHER_ROW: "*teacher*",
    SFT_START: "*untrained student, SFT start*",
    INSTRUCT_START: "*untrained student, instruct start*",
}
MARKS = {BETTER: "▼", TIE: "=", WORSE: "▲"}  # how the OTHER method stands to the reference
MARKUP = str.maketrans({character: f"&#{ord(character)};" for character in "&<>|*_`~[]$#@\\"})
NONE = "–"


def plain_text(text: str) -> str:
    """Text from outside, on one line, with nothing left for Markdown to read."""
    lines = [line.translate(MARKUP) for line in text.strip().splitlines()]
    return "<br>".join(lines) or "*(empty)*"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int = 1) -> str:
    """A Markdown table; the first `text_columns` are left-aligned, the rest are numbers."""
    rule = [":--" if column < text_columns else "--:" for column in range(len(header))]
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, rule, *rows))


def details(summary: str, body: str) -> str:
    return f"<details>\n<summary>{summary}</summary>\n\n{body}\n\n</details>"


def interval_text(interval: Interval) -> str:
    if interval.half_width is None:
        return f"{interval.mean:.1f}"
    return f"{interval.mean:.1f} ± {interval.half_width:.1f}"


def values_text(values: Sequence[float]) -> str:
    return interval_text(seed_interval(values)) if values else NONE


def number(value: float | None, digits: int = 0) -> str:
    return NONE if value is None else f"{value:,.{digits}f}"


def p_text(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def row_name(name: str) -> str:
    return NAMES.get(name, f"`{name}`")


def main_table(
    results: ExperimentResults, families: dict[str, list[Family]], reference: str
) -> str:
    """Models × tasks: the primary metric with its interval, and the share of valid outputs."""
    header = ["model"]
    for task in results.tasks:
        header += [f"{task.name}<br>{TITLES[task.primary]}", "valid %"]
    rows = []
    for name in (*STARTS, *results.methods):
        cells = [f"**{row_name(name)}**" if name == reference else row_name(name)]
        for task in results.tasks:
            model = task.models[name]
            verdicts = families[task.name][0].verdicts if families[task.name] else ()
            marks = {verdict.other: MARKS[verdict.word] for verdict in verdicts}
            score = values_text(model.values(task.primary))
            cells.append(f"{score} {marks[name]}" if name in marks else score)
            shares = model.values("valid")
            cells.append(f"{sum(shares) / len(shares):.1f}" if shares else NONE)
        rows.append(cells)
    return table(header, rows)


def metric_table(task: TaskResults) -> str:
    header = ["model", *(TITLES[metric] for metric in task.metrics)]
    rows = [
        [row_name(name), *(values_text(model.values(metric)) for metric in task.metrics)]
        for name, model in task.models.items()
    ]
    return table(header, rows)


def comparison_table(family: Family) -> str:
    header = ["against", "difference", "95 % interval", "effect d", "p", "p, runs", "Holm p"]
    header += ["verdict", "seeds to see it"]
    rows = []
    for verdict in family.verdicts:
        comparison = verdict.comparison
        rows.append(
            [
                row_name(verdict.other),
                f"{comparison.difference:+.1f}",
                f"{comparison.low:+.1f} … {comparison.high:+.1f}",
                f"{comparison.effect:+.2f}",
                p_text(comparison.p),
                NONE if comparison.p_runs is None else p_text(comparison.p_runs),
                p_text(verdict.holm_p),
                verdict.word,
                _seeds(family, verdict.seeds_needed),
            ]
        )
    return table(header, rows)


def _seeds(family: Family, needed: int | None) -> str:
    seeds = len(family.task.models[family.reference].by_seed)
    return f"> {MOST_SEEDS}" if needed is None and seeds > 1 else number(needed)


def record_table(results: ExperimentResults, pairs: list[MethodPair]) -> str:
    """Methods × tasks: wins–ties–losses against all other methods; most net wins first."""

    def cell(method: str, task: str | None) -> str:
        count = win_count(pairs, method, task)
        return f"{count.wins}–{count.ties}–{count.losses}"

    def net(method: str) -> int:
        count = win_count(pairs, method)
        return count.losses - count.wins

    names = [task.name for task in results.tasks]
    rows = [
        [row_name(m), *(cell(m, name) for name in names), cell(m, None)]
        for m in sorted(results.methods, key=net)
    ]
    return table(["method", *names, "all"], rows)


def matrix_table(results: ExperimentResults, pairs: list[MethodPair], task: str) -> str:
    """Each row's method against each column's: ▲ better, = tie, ▼ worse."""
    words = {
        (pair.verdict.method, pair.verdict.other): pair.verdict.word
        for pair in pairs
        if pair.task == task
    }
    signs = {BETTER: "▲", TIE: "=", WORSE: "▼"}

    def cell(row: str, column: str) -> str:
        if row == column:
            return ""
        word = words.get((row, column)) or OPPOSITE[words[column, row]]
        return signs[word]

    numbers = [str(i) for i, _ in enumerate(results.methods, 1)]
    rows = [
        [f"{i} `{row}`", *(cell(row, column) for column in results.methods)]
        for i, row in zip(numbers, results.methods, strict=True)
    ]
    return table(["", *numbers], rows)


def failure_table(failures: Sequence[Failure]) -> str:
    return table(
        ["task", "method", "failure", "numbers", "what to do"],
        [[f.task, f"`{f.method}`", f.name, f.numbers, f.remedy] for f in failures],
        text_columns=5,
    )


@dataclass(frozen=True)
class CostColumn:
    title: str
    digits: int
    # None where a run has no such cost
    read: Callable[[TrainedRun], float | None]


# By the column's name in tables/costs.csv
COSTS = {
    "seconds": CostColumn("seconds", 1, lambda run: run.cost.seconds),
    "steps": CostColumn("steps", 0, lambda run: run.steps),
    "best_step": CostColumn("best step", 0, lambda run: run.best_step),
    "response_tokens": CostColumn("trained tokens", 0, lambda run: run.response_tokens),
    "student_sampled_tokens": CostColumn(
        "sampled tokens", 0, lambda run: run.student_sampled_tokens
    ),
    "teacher_passes": CostColumn("teacher passes", 0, lambda run: run.teacher_passes),
    "teacher_tokens": CostColumn("teacher tokens", 0, lambda run: run.teacher_tokens),
    "acceptance_rate": CostColumn("accepted %", 1, lambda run: run.acceptance_rate),
    "peak_memory_mib": CostColumn("peak MiB", 0, lambda run: run.cost.peak_memory),
}
PHASES = {  # of `skd.engine.meter` -> column
    "sampling": "student sampling",
    "teacher": "teacher",
    "loss": "loss and gradient",
    "optimiser": "optimiser",
    "data": "batches",
    "validation": "validation",
}


def mean_cost(training: MethodTraining, column: CostColumn) -> float | None:
    """Over the seeds that have one."""
    known = [cost for run in training.runs.values() if (cost := column.read(run)) is not None]
    return sum(known) / len(known) if known else None


def cost_table(task: TaskResults) -> str:
    """Means over seeds: what one student cost."""
    header = ["method", "prompts", *(column.title for column in COSTS.values())]
    rows = []
    for method, training in task.training.items():
        cells = [f"`{method}`", number(training.budget.prompts)]
        cells += [number(mean_cost(training, column), column.digits) for column in COSTS.values()]
        rows.append(cells)
    return table(header, rows)


def mean_phases(training: MethodTraining) -> dict[str, float]:
    """Phase -> seconds of one student, mean over the seeds."""
    phases = [run.cost.phases for run in training.runs.values()]
    return {name: sum(each.get(name, 0.0) for each in phases) / len(phases) for name in PHASES}


def overhead_table(task: TaskResults) -> str:
    """Shares of a run's seconds, and what the teacher did for a token that was trained on."""
    header = ["method", *(f"{title} %" for title in PHASES.values()), "teacher tokens ÷ trained"]
    rows = []
    for method, training in task.training.items():
        phases = mean_phases(training)
        whole = sum(phases.values()) or 1.0
        read, trained = (
            mean_cost(training, COSTS[name]) for name in ("teacher_tokens", "response_tokens")
        )
        cells = [number(100 * seconds / whole) for seconds in phases.values()]
        rows.append([f"`{method}`", *cells, f"{(read or 0.0) / max(1.0, trained or 1.0):.2f}"])
    return table(header, rows)
