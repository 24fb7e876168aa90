"""What each row of methods is: the responses it trains on, its source, and how the run set it."""

from __future__ import annotations

from skd.report.reading.experiment import ExperimentResults
from skd.report.sections.cells import NONE, table
from skd.report.sections.words import START_TITLES
from skd.report.verdicts.relations import start_of
from skd.training.methods import Method, ResponseSource
from skd.training.settings import MethodSettings

ORIGINS = {
    "paper": "compared in SKD's paper",
    "official code": "in SKD's code",
    "other paper": "another paper",
    "ours": "ours",
}


def page(results: ExperimentResults) -> str:
    task = results.tasks[0]
    rows = [
        [
            f"`{name}`",
            training.method.description,
            source_text(training.method),
            "baseline" if training.method.baseline else "interleaved",
            START_TITLES[start_of(task, name)],
            _divergence(training.method, training.settings),
            _acceptance(training.method, training.settings),
        ]
        for name, training in task.training.items()
    ]
    header = ["method", "trains on", "source", "kind", "start", "divergence", "acceptance"]
    return (
        "# The methods\n\nRows of `methods` in params.yaml, as this run set them. *Baseline*: "
        "nothing in it is sampled by student and teacher in turn.\n\n"
        + table(header, rows, text_columns=len(header))
    )


def source_text(method: Method) -> str:
    origin = ORIGINS[method.origin]
    if method.arxiv is None:
        return origin
    return f"arXiv {method.arxiv}, {origin}"


def _divergence(method: Method, settings: MethodSettings) -> str:
    losses = [loss for loss in method.losses if loss.divergence]
    if not losses:
        return NONE
    asked = settings.divergence
    names = " and ".join(dict.fromkeys(loss.fixed or asked.name for loss in losses))
    if asked.teacher_temperature is not None:
        names += f", teacher at temperature {asked.teacher_temperature:g}"
    return names


def _acceptance(method: Method, settings: MethodSettings) -> str:
    if ResponseSource.INTERLEAVED not in method.sources:
        return NONE
    rule = settings.acceptance
    last = "" if rule.final_value is None else f" to {rule.final_value:g}"
    return f"{rule.rule} {rule.value:g}{last}, {rule.replacement}"
