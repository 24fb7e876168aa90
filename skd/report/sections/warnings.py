"""What a reader of the verdicts must know: training that went on, students far from the teacher."""

from __future__ import annotations

from statistics import fmean

from skd.report.reading.experiment import (
    SFT_START,
    TEACHER_ROW,
    ExperimentResults,
    TaskResults,
)
from skd.report.sections.cells import TITLES, listed, plain_text
from skd.report.verdicts.evidence import Evidence
from skd.report.verdicts.learning import highest

# Percent of the teacher's lead over the SFT start that the highest mean closes at least
FAR = 50.0


def section(results: ExperimentResults, evidence: Evidence) -> str:
    """Empty where there is nothing to warn of."""
    lines = [_learning(task, evidence) for task in results.tasks]
    lines += [_far(task) for task in results.tasks]
    lines += [_not_scored(task) for task in results.tasks]
    return "\n".join(f"> {line}<br>" for line in lines if line)


def _learning(task: TaskResults, evidence: Evidence) -> str:
    going_on = [each for each in evidence.learning if each.task == task.name and each.unfinished]
    if not going_on:
        return ""
    gains = listed([f"`{each.method}` by {each.gain:.1f} points" for each in going_on])
    return (
        f"**Still learning on {task.name}**: the validation metric rose in the last fifth of the "
        f"steps, {gains}. Longer training may change the order of the methods."
    )


def _far(task: TaskResults) -> str:
    top = highest(task)
    mean, teacher, start = (
        fmean(task.models[name].values(task.primary)) for name in (top, TEACHER_ROW, SFT_START)
    )
    if teacher <= start:
        return (
            f"**No lead to hand on, on {task.name}**: teacher {teacher:.1f}, untrained student "
            f"{start:.1f} ({TITLES[task.primary]})."
        )
    closed = 100 * (mean - start) / (teacher - start)
    if closed >= FAR:
        return ""
    return (
        f"**Far from the teacher on {task.name}**: the highest mean (`{top}`, {mean:.1f}) closes "
        f"{closed:.0f} % of the teacher's lead ({start:.1f} to {teacher:.1f})."
    )


def _not_scored(task: TaskResults) -> str:
    reasons: dict[str, dict[str, None]] = {}
    for model in task.models.values():
        for metric, why in model.not_scored.items():
            reasons.setdefault(metric, {})[why] = None
    return " ".join(
        f"{TITLES.get(metric, metric)} on {task.name}: not scored: {plain_text('; '.join(whys))}."
        for metric, whys in reasons.items()
    )
