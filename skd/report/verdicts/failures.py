"""Failure signatures: what goes wrong in distillation, told from a run's own numbers.

Each check reads one method on one task or test set and gives the numbers that show the failure, or
nothing. The thresholds are wide on purpose: a signature asks for a look, it is no verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from statistics import fmean, median

from skd.report.reading.run import START, TEACHER, Model, Run, TaskRun, Training


@dataclass(frozen=True)
class Case:
    """One method on one task or test set."""

    task: TaskRun
    method: str
    home: TaskRun  # the task it was trained on

    @property
    def training(self) -> Training:
        return self.task.training[self.method]

    @property
    def model(self) -> Model:
        return self.task.models[self.method]

    @property
    def teacher(self) -> Model:
        return self.task.models[TEACHER]

    def column(self, name: str) -> list[list[float]]:
        """Per seed, the logged values in the order of the steps."""
        values: dict[str, list[float]] = {}
        for row in self.training.log:
            if row[name]:
                values.setdefault(row["seed"], []).append(float(row[name]))
        return list(values.values())


@dataclass(frozen=True)
class Finding:
    task: str  # or the test set
    method: str
    signature: str
    numbers: str
    remedy: str


HOME, AWAY = "task", "test set"  # where a check makes sense

LOW_ACCEPTANCE, HIGH_ACCEPTANCE = 50.0, 99.5  # percent of the proposals
SPIKE = 20.0  # largest gradient norm over the median one
LONG, SHORT = 1.5, 0.6  # mean output length over the teacher's
ENDLESS = 10.0  # points fewer outputs that end than the teacher has
OVERFIT = 1.1  # last validation loss over the smallest
UNIFORM = 0.5  # distinct outputs over the teacher's
DEGENERATE = 10.0  # percent of the teacher's outputs that differ from one another
# Percent of the teacher's score: relative to it, since a harder set lowers both.
WELL_AT_HOME, LOST_AWAY = 80.0, 50.0


def _overridden(case: Case) -> str | None:
    rate = _acceptance(case)
    if rate is None or rate >= LOW_ACCEPTANCE:
        return None
    return f"{rate:.1f} % of the proposals accepted"


def _untouched(case: Case) -> str | None:
    rate = _acceptance(case)
    if rate is None or rate <= HIGH_ACCEPTANCE:
        return None
    return f"{rate:.1f} % of the proposals accepted"


def _acceptance(case: Case) -> float | None:
    rates = [seed["acceptance_rate"] for seed in case.training.seeds.values()]
    known = [rate for rate in rates if rate is not None]
    return fmean(known) if known else None


def _unstable(case: Case) -> str | None:
    ratios = [max(norms) / median(norms) for norms in case.column("grad_norm") if median(norms)]
    worst = max(ratios, default=0.0)
    return f"largest gradient norm {worst:.0f} times the median" if worst > SPIKE else None


def _longer(case: Case) -> str | None:
    ratio = _length(case.model) / max(1.0, _length(case.teacher))
    ended = [_mean(model.values("stopped")) for model in (case.model, case.teacher)]
    if ratio > LONG:
        return f"outputs {ratio:.1f} times as long as the teacher's"
    if None not in ended and ended[1] - ended[0] > ENDLESS:  # type: ignore[operator]
        return f"{ended[0]:.0f} % of the outputs end by themselves, of the teacher's {ended[1]:.0f}"
    return None


def _shorter(case: Case) -> str | None:
    ratio = _length(case.model) / max(1.0, _length(case.teacher))
    return f"outputs {ratio:.1f} times as long as the teacher's" if ratio < SHORT else None


def _overfitted(case: Case) -> str | None:
    ratios = [losses[-1] / min(losses) for losses in case.column("validation_loss") if min(losses)]
    worst = max(ratios, default=1.0)
    return f"validation loss ended {worst:.2f} times its smallest" if worst > OVERFIT else None


def _collapsed(case: Case) -> str | None:
    own, teacher = _distinct(case.model), _distinct(case.teacher)
    if own >= UNIFORM * teacher:
        return None
    return f"{own:.0f} % of the outputs are distinct, of the teacher's {teacher:.0f} %"


def _bad_teacher(case: Case) -> str | None:
    primary, start = case.task.primary, case.task.models[START]
    distinct = _distinct(case.teacher)
    scores = [_mean(model.values(primary)) for model in (case.teacher, start)]
    if distinct < DEGENERATE:
        return f"{distinct:.0f} % of the teacher's outputs are distinct"
    if None not in scores and scores[0] <= scores[1]:  # type: ignore[operator]
        return f"teacher {scores[0]:.1f}, untrained student {scores[1]:.1f}"
    return None


def _left_behind(case: Case) -> str | None:
    at_home, away = (_share(task, case.method) for task in (case.home, case.task))
    if at_home is None or away is None or at_home < WELL_AT_HOME or away >= LOST_AWAY:
        return None
    return f"{away:.0f} % of the teacher's score, on {case.home.name} {at_home:.0f} %"


def _share(task: TaskRun, method: str) -> float | None:
    """Percent of the teacher's score; None where the teacher has no lead to hand on."""
    own, teacher, start = (
        _mean(task.models[name].values(task.primary)) for name in (method, TEACHER, START)
    )
    if own is None or teacher is None or start is None or teacher <= start:
        return None
    return 100 * own / teacher


def _length(model: Model) -> float:
    """Mean characters of an output."""
    return fmean(len(example.output) for example in _outputs(model))


def _distinct(model: Model) -> float:
    """Percent; mean over seeds."""
    shares = [
        len({example.output for example in seed.values()}) / len(seed)
        for seed in model.examples.values()
    ]
    return 100 * fmean(shares)


def _outputs(model: Model) -> Iterable:  # type: ignore[type-arg]
    return (example for seed in model.examples.values() for example in seed.values())


def _mean(values: list[float]) -> float | None:
    return fmean(values) if values else None


@dataclass(frozen=True)
class Check:
    read: Callable[[Case], str | None]  # the numbers that show the failure; None: there is none
    remedy: str  # {method}: its row of `methods`, {task}: the task it was trained on
    on: tuple[str, ...] = (HOME,)


# What a training run tells, a test set cannot tell anew; a teacher is judged on its own task, and
# where it fails on a set, no student is blamed for that set.
CHECKS = {
    "teacher overrides almost everything": Check(
        _overridden,
        "the student hardly saw its own states: loosen `methods.{method}.acceptance` (larger K, "
        "lower probability) or begin from SFT",
    ),
    "almost nothing is replaced": Check(
        _untouched,
        "this was on-policy KD in all but name: tighten `methods.{method}.acceptance`",
    ),
    "unstable signal": Check(
        _unstable,
        "lower `learning_rate` or `distill.optimisation.clip`",
    ),
    "length explosion": Check(
        _longer,
        "check that training responses end with the end-of-sequence token; raise "
        "`budget.{task}.max_new_tokens` if the data are longer",
        (HOME, AWAY),
    ),
    "early end of sequence": Check(
        _shorter,
        "off-policy rows help: `imit_kd`, `mixed_skd`, or an SFT start",
        (HOME, AWAY),
    ),
    "overfitting": Check(
        _overfitted,
        "fewer steps, `distill.optimisation.patience`, or more rows "
        "(`budget.{task}.student_examples`)",
    ),
    "collapse of diversity": Check(
        _collapsed,
        "raise `distill.student_sampling.temperature`; forward KL instead of reverse KL",
        (HOME, AWAY),
    ),
    "degenerate teacher": Check(
        _bad_teacher,
        "train the teacher first (`sft.teacher`) or choose another: students cannot learn from it",
    ),
    "does not carry over": Check(
        _left_behind,
        "the teacher can do it, so the student learnt its rows rather than the task: rows of "
        "this kind in `data.{task}.source`, or more of them (`budget.{task}.student_examples`)",
        (AWAY,),
    ),
}


def checked(on: str) -> list[str]:
    """The names of what is checked on a task or on a test set."""
    return [name for name, check in CHECKS.items() if on in check.on]


def signatures(run: Run) -> list[Finding]:
    """All that the checks find, in the order of tasks, methods and checks, then of test sets.

    On a test set nothing is said again that the method already showed on its own task.
    """
    tasks = {task.name: task for task in run.tasks}
    found = [
        finding
        for task in run.tasks
        for method in task.training
        for finding in _found(Case(task, method, task), HOME)
    ]
    shown = {(finding.task, finding.method, finding.signature) for finding in found}
    for tested in run.test_sets:
        home = tasks[tested.card["tests"]]
        found += [
            finding
            for method in home.training
            for finding in _found(Case(tested, method, home), AWAY)
            if (home.name, method, finding.signature) not in shown
        ]
    return found


def _found(case: Case, on: str) -> Iterator[Finding]:
    for name in checked(on):
        check = CHECKS[name]
        if numbers := check.read(case):
            remedy = check.remedy.replace("{method}", case.method)
            remedy = remedy.replace("{task}", case.home.name)
            yield Finding(case.task.name, case.method, name, numbers, remedy)
