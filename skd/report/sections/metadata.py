"""What a model card says to machines, and the licences behind a student.

The front matter is the Hub's: https://huggingface.co/docs/hub/model-cards. Judges no licence: it
repeats what the sources say of themselves.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from skd.data.settings import Hub
from skd.report.reading.experiment import ExperimentResults, TaskResults
from skd.report.sections.cells import plain_text, table
from skd.report.verdicts.relations import kind_of

NOT_STATED = "not stated"
MADE_HERE = "made in this run"  # of procedural data and models: nobody else's
# The Hub's names of licences, as far as models and data sets for distillation carry them; any
# other name goes to `license_name`.
HUB_LICENCES = frozenset({
    "apache-2.0", "mit", "bsd", "bsd-2-clause", "bsd-3-clause", "cc", "cc0-1.0", "cc-by-2.0",
    "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-2.0",
    "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0",
    "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "openrail", "openrail++",
    "bigscience-openrail-m", "bigcode-openrail-m", "creativeml-openrail-m",
    "bigscience-bloom-rail-1.0", "agpl-3.0", "gpl-2.0", "gpl-3.0", "lgpl-2.1", "lgpl-3.0",
    "mpl-2.0", "epl-2.0", "eupl-1.2", "odc-by", "pddl", "odbl", "unlicense", "gemma", "llama2",
    "llama3", "llama3.1", "llama3.2", "llama3.3", "llama4",
})  # fmt: skip
HUB_TASKS = frozenset({"translation", "summarization"})
HUB_METRICS = {  # ours -> the Hub's
    "sentence_chrf": "chrf",
    "chrf": "chrf",
    "bleu": "bleu",
    "comet": "comet",
    "rouge_1": "rouge",
    "rouge_2": "rouge",
    "rouge_l": "rouge",
    "exact_match": "exact_match",
}


def licences(results: ExperimentResults, task: TaskResults) -> dict[str, str]:
    """Of all that a student of this task is made of."""
    teacher, student = results.pair.teacher.origin, results.pair.student.origin
    return {
        "teacher": _stated(teacher.license, teacher.kind),
        "student before training": _stated(student.license, student.kind),
        "data": _stated(task.card.license, task.card.source.kind),
    }


def licence_section(results: ExperimentResults, task: TaskResults) -> str:
    rows = [[what, plain_text(name)] for what, name in licences(results, task).items()]
    return (
        f"{table(['', 'licence'], rows, text_columns=2)}\n\n"
        "The student is made of all three: its use is bound by all of these licences at once. "
        f"Where one is {NOT_STATED}, ask its source before you pass the student on."
    )


def front_matter(results: ExperimentResults, task: TaskResults, method: str) -> str:
    fields = {
        "library_name": "transformers",
        "pipeline_tag": _pipeline(results, task),
        **_licence(licences(results, task).values()),
        "base_model": [name for name in [results.pair.student.origin.id] if name],
        "datasets": [name for name in [_data_set(task)] if name],
        "metrics": list(dict.fromkeys(HUB_METRICS[m] for m in task.metrics if m in HUB_METRICS)),
        "tags": list(dict.fromkeys(["knowledge-distillation", kind_of(task, method), task.kind])),
    }
    known = {key: value for key, value in fields.items() if value}
    return f"---\n{yaml.safe_dump(known, sort_keys=False, allow_unicode=True)}---\n"


def _pipeline(results: ExperimentResults, task: TaskResults) -> str:
    """The Hub's name of what the model does: an encoder–decoder is looked for by its task."""
    if not results.pair.encoder_decoder:
        return "text-generation"
    return task.kind if task.kind in HUB_TASKS else "text2text-generation"


def _licence(names: Any) -> dict[str, str]:
    """The one licence of all parts; `other` for several, `unknown` where one is not stated."""
    slugs = list(dict.fromkeys(_slug(name) for name in names if name != MADE_HERE))
    if not slugs:
        return {}
    if _slug(NOT_STATED) in slugs:
        return {"license": "unknown"}
    if len(slugs) == 1 and slugs[0] in HUB_LICENCES:
        return {"license": slugs[0]}
    return {"license": "other", "license_name": "-and-".join(slugs)}


def _slug(name: str) -> str:
    """`CC BY-SA 4.0` -> `cc-by-sa-4.0`"""
    return re.sub(r"[^a-z0-9.+]+", "-", name.lower()).strip("-")


def _stated(licence: str | None, kind: str) -> str:
    """kind: of the model or of the data's source."""
    return licence or (MADE_HERE if kind == "procedural" else NOT_STATED)


def _data_set(task: TaskResults) -> str | None:
    source = task.card.source
    return source.id if isinstance(source, Hub) else None
