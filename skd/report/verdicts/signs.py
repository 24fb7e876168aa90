"""What the known failures of distillation look like, read from an experiment's own numbers.

Each reading takes one method on one task or test set and gives the numbers that show a failure, or
nothing. The thresholds are wide on purpose: a failure asks for a look, it is no verdict.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from skd.report.reading.experiment import (
    SFT_START,
    TEACHER_ROW,
    MethodTraining,
    ModelScores,
    TaskResults,
)
from skd.results.evaluation import OutputRecord


@dataclass(frozen=True)
class Case:
    """One method on one task or test set."""

    task: TaskResults
    method: str
    # The task that it was trained on
    home: TaskResults

    @property
    def training(self) -> MethodTraining:
        return self.task.training[self.method]

    @property
    def model(self) -> ModelScores:
        return self.task.models[self.method]

    @property
    def teacher(self) -> ModelScores:
        return self.task.models[TEACHER_ROW]

    def column(self, name: str) -> list[list[float]]:
        """Per seed, the logged values in the order of the steps."""
        values: dict[int, list[float]] = {}
        for row in self.training.log:
            if (value := getattr(row, name)) is not None:
                values.setdefault(row.seed, []).append(value)
        return list(values.values())


# Percent of the proposals
LOW_ACCEPTANCE, HIGH_ACCEPTANCE = 50.0, 99.5
# Largest gradient norm over the median one
SPIKE = 20.0
# Mean output length over the teacher's
LONG, SHORT = 1.5, 0.6
# Points fewer outputs that end than the teacher has
ENDLESS = 10.0
# Last validation loss over the smallest, and points that the metric, mean over seeds, ends below
# its highest. A student that learns to be as sure as its teacher loses by the first alone.
OVERFIT, FALLEN = 1.1, 1.0
# Distinct outputs over the teacher's
UNIFORM = 0.5
# Percent of the teacher's outputs that differ from one another
DEGENERATE = 10.0
# Percent of the teacher's score: relative to it, since a harder set lowers both
WELL_AT_HOME, LOST_AWAY = 80.0, 50.0


def overridden(case: Case) -> str | None:
    rate = _acceptance(case)
    if rate is None or rate >= LOW_ACCEPTANCE:
        return None
    return f"{rate:.1f} % of the proposals accepted"


def untouched(case: Case) -> str | None:
    rate = _acceptance(case)
    if rate is None or rate <= HIGH_ACCEPTANCE:
        return None
    return f"{rate:.1f} % of the proposals accepted"


def _acceptance(case: Case) -> float | None:
    rates = [run.acceptance_rate for run in case.training.runs.values()]
    return _mean([rate for rate in rates if rate is not None])


def unstable(case: Case) -> str | None:
    ratios = [max(norms) / median(norms) for norms in case.column("grad_norm") if median(norms)]
    worst = max(ratios, default=0.0)
    return f"largest gradient norm {worst:.0f} times the median" if worst > SPIKE else None


def longer(case: Case) -> str | None:
    ratio = _length(case.model) / max(1.0, _length(case.teacher))
    if ratio > LONG:
        return f"outputs {ratio:.1f} times as long as the teacher's"
    ended, teacher = (_mean(model.values("stopped")) for model in (case.model, case.teacher))
    if ended is not None and teacher is not None and teacher - ended > ENDLESS:
        return f"{ended:.0f} % of the outputs end by themselves, of the teacher's {teacher:.0f}"
    return None


def shorter(case: Case) -> str | None:
    ratio = _length(case.model) / max(1.0, _length(case.teacher))
    return f"outputs {ratio:.1f} times as long as the teacher's" if ratio < SHORT else None


def overfitted(case: Case) -> str | None:
    ratios = [losses[-1] / min(losses) for losses in case.column("validation_loss") if min(losses)]
    worst = max(ratios, default=1.0)
    course = [fmean(metrics) for metrics in zip(*case.column("validation_metric"), strict=False)]
    fallen = max(course) - course[-1] if course else 0.0
    if worst <= OVERFIT or fallen <= FALLEN:
        return None
    return (
        f"validation loss ended {worst:.2f} times its smallest, and the metric {fallen:.1f} points "
        "below its highest"
    )


def collapsed(case: Case) -> str | None:
    own, teacher = _distinct(case.model), _distinct(case.teacher)
    if own >= UNIFORM * teacher:
        return None
    return f"{own:.0f} % of the outputs are distinct, of the teacher's {teacher:.0f} %"


def bad_teacher(case: Case) -> str | None:
    distinct = _distinct(case.teacher)
    if distinct < DEGENERATE:
        return f"{distinct:.0f} % of the teacher's outputs are distinct"
    start = case.task.models[SFT_START]
    teacher, untrained = (_mean(model.values(case.task.primary)) for model in (case.teacher, start))
    if teacher is not None and untrained is not None and teacher <= untrained:
        return f"teacher {teacher:.1f}, untrained student {untrained:.1f}"
    return None


def left_behind(case: Case) -> str | None:
    at_home, away = (_share(task, case.method) for task in (case.home, case.task))
    if at_home is None or away is None or at_home < WELL_AT_HOME or away >= LOST_AWAY:
        return None
    return f"{away:.0f} % of the teacher's score, on {case.home.name} {at_home:.0f} %"


def _share(task: TaskResults, method: str) -> float | None:
    """Percent of the teacher's score; None where the teacher has no lead to hand on."""
    own, teacher, start = (
        _mean(task.models[name].values(task.primary)) for name in (method, TEACHER_ROW, SFT_START)
    )
    if own is None or teacher is None or start is None or teacher <= start:
        return None
    return 100 * own / teacher


def _length(model: ModelScores) -> float:
    """Mean characters of an output."""
    return fmean(len(record.output) for record in _outputs(model))


def _distinct(model: ModelScores) -> float:
    """Percent; mean over seeds."""
    shares = [
        len({record.output for record in outputs.values()}) / len(outputs)
        for outputs in model.outputs.values()
    ]
    return 100 * fmean(shares)


def _outputs(model: ModelScores) -> Iterator[OutputRecord]:
    return (record for outputs in model.outputs.values() for record in outputs.values())


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None
