"""Known failures of distillation, where they are looked for, and what to do about them.

The readings themselves are in `signs`. Knows no Markdown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from skd.report.reading.experiment import ExperimentResults
from skd.report.verdicts import signs
from skd.report.verdicts.signs import Case

# Where a check makes sense
HOME, AWAY = "task", "test set"


@dataclass(frozen=True)
class Failure:
    """What was seen of a known failure."""

    # Or the test set
    task: str
    method: str
    # A name of `CHECKS`
    name: str
    numbers: str
    remedy: str


@dataclass(frozen=True)
class FailureCheck:
    # The numbers that show the failure; None: there is none
    read: Callable[[Case], str | None]
    # {method}: its row of `methods`, {task}: the task it was trained on
    remedy: str
    on: tuple[str, ...] = (HOME,)


# What training tells, a test set cannot tell anew. A teacher is judged on its own task, and where
# it fails on a set, no student is blamed for that set.
CHECKS = {
    "teacher overrides almost everything": FailureCheck(
        signs.overridden,
        "the student hardly saw its own states: loosen `methods.{method}.acceptance` (larger K, "
        "lower probability) or begin from SFT",
    ),
    "almost nothing is replaced": FailureCheck(
        signs.untouched,
        "the interleaved responses were the student's own samples, as on-policy KD's are: with a "
        "tighter `methods.{method}.acceptance` the teacher corrects more",
    ),
    "unstable signal": FailureCheck(
        signs.unstable,
        "lower `learning_rate` or `distill.optimisation.clip`",
    ),
    "length explosion": FailureCheck(
        signs.longer,
        "check that training responses end with the end-of-sequence token; raise "
        "`budget.{task}.max_new_tokens` if the data are longer",
        (HOME, AWAY),
    ),
    "early end of sequence": FailureCheck(
        signs.shorter,
        "off-policy rows help: `imit_kd`, `mixed_skd`, or an SFT start",
        (HOME, AWAY),
    ),
    "overfitting": FailureCheck(
        signs.overfitted,
        "fewer steps, `distill.optimisation.patience`, or more rows "
        "(`budget.{task}.student_examples`)",
    ),
    "collapse of diversity": FailureCheck(
        signs.collapsed,
        "raise `distill.student_sampling.temperature`; forward KL instead of reverse KL",
        (HOME, AWAY),
    ),
    "degenerate teacher": FailureCheck(
        signs.bad_teacher,
        "train the teacher first (`sft.teacher`) or choose another: students cannot learn from it",
    ),
    "does not carry over": FailureCheck(
        signs.left_behind,
        "the teacher can do it, so the student learnt its rows rather than the task: rows of "
        "this kind in `data.{task}.source`, or more of them (`budget.{task}.student_examples`)",
        (AWAY,),
    ),
}


def checked(on: str) -> list[str]:
    """The names of what is checked on a task or on a test set."""
    return [name for name, check in CHECKS.items() if on in check.on]


def failures(results: ExperimentResults) -> list[Failure]:
    """All that the checks find, in the order of tasks, methods and checks, then of test sets.

    On a test set nothing is said again that the method already showed on its own task.
    """
    tasks = {task.name: task for task in results.tasks}
    at_home = [
        failure
        for task in results.tasks
        for method in task.training
        for failure in _checked(Case(task, method, task), HOME)
    ]
    shown = {(failure.task, failure.method, failure.name) for failure in at_home}
    away = [
        failure
        for tested in results.test_sets
        for home in [tasks[str(tested.card.tests)]]
        for method in home.training
        for failure in _checked(Case(tested, method, home), AWAY)
        if (home.name, method, failure.name) not in shown
    ]
    return at_home + away


def _checked(case: Case, on: str) -> Iterator[Failure]:
    for name in checked(on):
        check = CHECKS[name]
        if numbers := check.read(case):
            remedy = check.remedy.replace("{method}", case.method)
            remedy = remedy.replace("{task}", case.home.name)
            yield Failure(case.task.name, case.method, name, numbers, remedy)
