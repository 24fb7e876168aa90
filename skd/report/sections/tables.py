"""Markdown cells and tables, and the numbers in them. Knows no report structure.

Text from data and models is written as HTML entities where GitHub would read markup: a
dialogue's `#Person1#`, a price's `$` or a stray `|` must stay what they are.
"""

from __future__ import annotations

from collections.abc import Sequence

from skd.report.reading.run import INSTRUCT_START, START, STARTS, TEACHER, Run, TaskRun, Training
from skd.report.verdicts.compare import BETTER, TIE, WORSE, Family
from skd.report.verdicts.failures import Finding
from skd.report.verdicts.pairs import OPPOSITE, Pair, record
from skd.report.verdicts.statistics import MOST_SEEDS, Interval, seed_interval

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
    TEACHER: "*teacher*",
    START: "*untrained student, SFT start*",
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


def main_table(run: Run, families: dict[str, list[Family]], reference: str) -> str:
    """Models × tasks: the primary metric with its interval, and the share of valid outputs."""
    header = ["model"]
    for task in run.tasks:
        header += [f"{task.name}<br>{TITLES[task.primary]}", "valid %"]
    rows = []
    for name in (*STARTS, *run.methods):
        cells = [f"**{row_name(name)}**" if name == reference else row_name(name)]
        for task in run.tasks:
            model = task.models[name]
            verdicts = families[task.name][0].verdicts if families[task.name] else ()
            marks = {verdict.other: MARKS[verdict.word] for verdict in verdicts}
            score = values_text(model.values(task.primary))
            cells.append(f"{score} {marks[name]}" if name in marks else score)
            shares = model.values("valid")
            cells.append(f"{sum(shares) / len(shares):.1f}" if shares else NONE)
        rows.append(cells)
    return table(header, rows)


def metric_table(task: TaskRun) -> str:
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
        found = verdict.comparison
        rows.append(
            [
                row_name(verdict.other),
                f"{found.difference:+.1f}",
                f"{found.low:+.1f} … {found.high:+.1f}",
                f"{found.effect:+.2f}",
                p_text(found.p),
                NONE if found.p_runs is None else p_text(found.p_runs),
                p_text(verdict.holm_p),
                verdict.word,
                _seeds(family, verdict.seeds_needed),
            ]
        )
    return table(header, rows)


def _seeds(family: Family, needed: int | None) -> str:
    seeds = len(family.task.models[family.reference].system)
    return f"> {MOST_SEEDS}" if needed is None and seeds > 1 else number(needed)


def record_table(run: Run, pairs: list[Pair]) -> str:
    """Methods × tasks: wins–ties–losses against all other methods; most net wins first."""

    def cell(method: str, task: str | None) -> str:
        found = record(pairs, method, task)
        return f"{found.wins}–{found.ties}–{found.losses}"

    def net(method: str) -> int:
        found = record(pairs, method)
        return found.losses - found.wins

    names = [task.name for task in run.tasks]
    rows = [
        [row_name(m), *(cell(m, name) for name in names), cell(m, None)]
        for m in sorted(run.methods, key=net)
    ]
    return table(["method", *names, "all"], rows)


def matrix_table(run: Run, pairs: list[Pair], task: str) -> str:
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

    numbers = [str(i) for i, _ in enumerate(run.methods, 1)]
    rows = [
        [f"{i} `{row}`", *(cell(row, column) for column in run.methods)]
        for i, row in zip(numbers, run.methods, strict=True)
    ]
    return table(["", *numbers], rows)


def signature_table(findings: list[Finding]) -> str:
    return table(
        ["task", "method", "signature", "numbers", "what to do"],
        [[f.task, f"`{f.method}`", f.signature, f.numbers, f.remedy] for f in findings],
        text_columns=5,
    )


COSTS = (  # column, key in metrics/distill, digits
    ("seconds", "seconds", 1),
    ("steps", "steps", 0),
    ("best step", "best_step", 0),
    ("trained tokens", "response_tokens", 0),
    ("sampled tokens", "student_sampled_tokens", 0),
    ("teacher passes", "teacher_passes", 0),
    ("teacher tokens", "teacher_tokens", 0),
    ("accepted %", "acceptance_rate", 1),
    ("peak MiB", "peak_memory_mib", 0),
)
PHASES = {  # of `skd.engine.meter` -> column
    "sampling": "student sampling",
    "teacher": "teacher",
    "loss": "loss and gradient",
    "optimiser": "optimiser",
    "data": "batches",
    "validation": "validation",
}


def mean_cost(training: Training, key: str) -> float | None:
    """Over the seeds that have one."""
    known = [seed[key] for seed in training.seeds.values() if seed[key] is not None]
    return sum(known) / len(known) if known else None


def cost_table(task: TaskRun) -> str:
    """Means over seeds: what one student cost."""
    header = ["method", "prompts", *(title for title, _, _ in COSTS)]
    rows = []
    for method, training in task.training.items():
        cells = [f"`{method}`", number(training.budget["prompts"])]
        cells += [number(mean_cost(training, key), digits) for _, key, digits in COSTS]
        rows.append(cells)
    return table(header, rows)


def mean_phases(training: Training) -> dict[str, float]:
    """Phase -> seconds of one student, mean over the seeds."""
    seeds = training.seeds.values()
    return {p: sum(seed["phases"].get(p, 0.0) for seed in seeds) / len(seeds) for p in PHASES}


def overhead_table(task: TaskRun) -> str:
    """Shares of a run's seconds, and what the teacher did for a token that was trained on."""
    header = ["method", *(f"{title} %" for title in PHASES.values()), "teacher tokens ÷ trained"]
    rows = []
    for method, training in task.training.items():
        phases = mean_phases(training)
        whole = sum(phases.values()) or 1.0
        read, trained = (mean_cost(training, k) for k in ("teacher_tokens", "response_tokens"))
        cells = [number(100 * seconds / whole) for seconds in phases.values()]
        rows.append([f"`{method}`", *cells, f"{(read or 0.0) / max(1.0, trained or 1.0):.2f}"])
    return table(header, rows)
