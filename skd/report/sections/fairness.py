"""Methods tuned alike, at equal steps, tokens and seconds: metrics/fairness.json, fairness/*.jsonl.

The choice of settings was made on validation; the comparison is on the test split. Verdicts are
made as in the main comparison, corrected within each view.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skd.report.reading.read import read_json, read_lines
from skd.report.reading.run import Json
from skd.report.sections.tables import MARKS, TITLES, details, number, row_name, table, values_text
from skd.report.verdicts.compare import Verdict, judge
from skd.tasks import TASKS

STAGE = "fairness"
VIEWS = {
    "steps": "equal steps",
    "tokens": "equal tokens generated",
    "seconds": "equal training seconds",
}
COLUMNS = (
    "task", "view", "method", "steps", "mean", "seeds", "sampled_tokens", "training_seconds",
    "difference", "low", "high", "holm_p", "verdict",
)  # fmt: skip

Scores = Mapping[tuple[str, int], NDArray[np.float64]]  # (method, steps) -> [seeds, examples]


@dataclass(frozen=True)
class Fairness:
    facts: Json
    verdicts: dict[tuple[str, str], dict[str, Verdict]]  # (task, view) -> by other
    reference: str | None


def read_fairness(root: Path, reference: str, resamples: int, seed: int) -> Fairness:
    """Raises `UserError` naming the file and the stage where one is missing."""
    facts = read_json(root / "metrics" / "fairness.json", STAGE)
    verdicts: dict[tuple[str, str], dict[str, Verdict]] = {}
    for name, task in facts["tasks"].items():
        methods = list(task["views"]["steps"])
        if reference not in methods:
            continue
        scores = _scores(read_lines(root / "fairness" / f"{name}.jsonl", STAGE), task["kind"])
        for view, runs in task["views"].items():
            ours = scores[reference, runs[reference]["steps"]]
            couples = {
                (reference, other): (ours, scores[other, runs[other]["steps"]])
                for other in methods
                if other != reference
            }
            made = judge(couples, resamples, seed)
            verdicts[name, view] = {verdict.other: verdict for verdict in made}
    return Fairness(facts, verdicts, reference if verdicts else None)


def _scores(records: list[Json], kind: str) -> Scores:
    primary = TASKS[kind].primary
    found: dict[tuple[str, int], dict[int, dict[str, float]]] = {}
    for row in records:
        by_seed = found.setdefault((row["model"], row["steps"]), {})
        by_seed.setdefault(row["seed"], {})[row["id"]] = row["scores"][primary]
    return {
        run: np.array([[scores[i] for i in sorted(scores)] for scores in seeds.values()])
        for run, seeds in found.items()
    }


def section(found: Fairness) -> str:
    """Empty where no task was compared so."""
    if not found.facts["tasks"]:
        return ""
    seeds = ", ".join(map(str, found.facts["seeds"]))
    against = (
        f" Against `{found.reference}`, corrected within each view: ▲ better, = tie, ▼ worse."
        if found.reference
        else ""
    )
    parts = [
        "### Equal tuning, three budgets\n\nEvery method had the same number of tries, chosen on "
        "validation with the first seed; the chosen settings stand here on the **test** split, "
        f"seeds {seeds}. *Equal tokens*, *equal seconds*: steps so many that each method takes "
        "what the most expensive one took at equal steps; a method that generates nothing while "
        f"training keeps its steps.{against}"
    ]
    for name, task in found.facts["tasks"].items():
        parts.append(_views(name, task, found))
        parts.append(details(f"{name}: the tries", _tries(task)))
    return "\n\n".join(parts)


def _views(name: str, task: Json, found: Fairness) -> str:
    title = TITLES[TASKS[task["kind"]].primary]
    header = [f"{name}: {title}", "chosen"]
    header += [cell for text in VIEWS.values() for cell in (text, "steps")]
    chosen = {row["method"]: row for row in task["tries"] if row["chosen"]}
    rows = []
    for method, one in chosen.items():
        bold = method == found.reference
        cells = [f"**{row_name(method)}**" if bold else row_name(method), _settings(one)]
        for view in VIEWS:
            run = task["views"][view][method]
            verdict = found.verdicts.get((name, view), {}).get(method)
            mark = "" if verdict is None else f" {MARKS[verdict.word]}"
            cells += [values_text(_values(task, run)) + mark, number(run["steps"])]
        rows.append(cells)
    return table(header, rows, text_columns=2)


def _values(task: Json, run: Json) -> list[float]:
    primary = TASKS[task["kind"]].primary
    return [facts["test"][primary] for facts in run["seeds"].values()]


def _settings(one: Json) -> str:
    return f"rate {one['learning_rate']:g}, {one['setting']} {one['value']}"


def _tries(task: Json) -> str:
    rows = [
        [f"`{one['method']}`", _settings(one), f"{one['metric']:.1f}", "×" if one["chosen"] else ""]
        for one in task["tries"]
    ]
    return table(["method", "settings", "validation", "chosen"], rows, text_columns=2)


def fairness_rows(found: Fairness) -> Iterable[tuple[Any, ...]]:
    """For the CSV: one row per task, view and method."""
    for name, task in found.facts["tasks"].items():
        for view, methods in task["views"].items():
            for method, run in methods.items():
                values, seeds = _values(task, run), list(run["seeds"].values())
                verdict = found.verdicts.get((name, view), {}).get(method)
                yield (
                    name,
                    view,
                    method,
                    run["steps"],
                    float(np.mean(values)),
                    len(values),
                    float(np.mean([s["student_sampled_tokens"] for s in seeds])),
                    float(np.mean([s["training_seconds"] for s in seeds])),
                    *_compared(verdict),
                )


def _compared(verdict: Verdict | None) -> tuple[object, ...]:
    """The reference minus this method."""
    if verdict is None:
        return ("",) * 5
    found = verdict.comparison
    return found.difference, found.low, found.high, verdict.holm_p, verdict.word
