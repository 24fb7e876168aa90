"""A model card per method and task: what the students are, how good, and how to load them."""

from __future__ import annotations

import json
import re

from skd.report.reading.experiment import (
    INSTRUCT_START,
    SFT_START,
    TEACHER_ROW,
    ExperimentResults,
    TaskResults,
)
from skd.report.sections.cells import TITLES, plain_text, spread_words, table, values_text
from skd.report.sections.layers import layers_section
from skd.report.sections.metadata import front_matter, licence_section
from skd.report.sections.methods import source_text as method_source
from skd.report.sections.provenance import Provenance, source_text
from skd.report.verdicts.relations import start_of
from skd.results.pair import ModelFacts
from skd.settings import plain


def cards(results: ExperimentResults, provenance: Provenance) -> dict[str, str]:
    """File name -> Markdown."""
    return {
        f"{task.name}-{method}.md": _card(results, task, method, provenance)
        for task in results.tasks
        for method in results.methods
    }


def _rows(task: TaskResults, method: str) -> str:
    seen = sorted({run.training_rows for run in task.training[method].runs.values()})
    of = task.card.splits["train"].rows
    return f"each student saw {' or '.join(map(str, seen))} of {of:,} training rows"


def _card(
    results: ExperimentResults, task: TaskResults, method: str, provenance: Provenance
) -> str:
    training, model = task.training[method], task.models[method]
    start = start_of(task, method)
    folder = f"models/students/{method}/{task.name}"
    layers = layers_section(results.pair.layers, results.pair.teacher.size.layers)
    first = results.seeds[0]
    seeds = ", ".join(map(str, results.seeds))
    auto = "AutoModelForSeq2SeqLM" if results.pair.encoder_decoder else "AutoModelForCausalLM"
    return f"""{front_matter(results, task, method)}
# {task.name}, `{method}`

Students distilled for {task.kind}, one per seed ({seeds}).

| | |
| :-- | :-- |
| teacher | {_model(results.pair.teacher)}, fine-tuned on the task |
| student | {_model(results.pair.student)}, {start} start |
| data | {plain_text(source_text(task))}; {_rows(task, method)} |
| budget | {training.budget.steps:,} steps of {training.budget.batch_size} prompts |
| code | `{provenance.revision}`{" with uncommitted changes" if provenance.dirty else ""} |
| parameters | `{provenance.parameters_hash}` |
{layers}
## Method

`{training.settings.method}`: {training.method.description} ({method_source(training.method)}).

```json
{json.dumps(plain(training.settings), indent=2, ensure_ascii=False)}
```

## Results

{model.split.capitalize()} split, {model.n:,} examples, greedy decoding, percent,
{spread_words(len(results.seeds))}.

{_results(task, method, start)}
{_test_sets(results, task, method, start)}
## Limits

- Trained and scored on one task; outputs to other prompts mean nothing.
- The scores hold for this source of data; the intervals say nothing about other data.
- The student repeats its teacher's mistakes; nothing was filtered for safety or bias.

## Licences

{licence_section(results, task)}

## Load

```python
from transformers import {auto}, AutoTokenizer

folder = "{folder}/{first}"  # the last part is the seed
model = {auto}.from_pretrained(folder)
tokenizer = AutoTokenizer.from_pretrained(folder)
prompt = {task.card.prompt!r}.replace("{{source}}", "…")
{_answer(results)}
```

Fetch the folder with `dvc pull {folder}` or make it with `dvc repro distill@{method}`.
The [report](../report.md) compares it with the other methods.
"""


def for_the_hub(card: str, name: str) -> str:
    """The card as it stands beside the weights there: it names nothing of this repository alone."""
    there = re.sub(r'^folder = ".*$', f'folder = "{name}"', card, flags=re.MULTILINE)
    return there.partition("\nFetch the folder with")[0]


def _answer(results: ExperimentResults) -> str:
    """Code that makes the answer to `prompt` as training and scoring do."""
    pair, special, first = results.pair, "", "ids.input_ids.shape[1]"
    lines = []
    if pair.encoder_decoder:
        text, first = "prompt", "0"
    elif pair.chat_template:
        turns = 'turns = [{"role": "user", "content": prompt}]'
        options = "tokenize=False, add_generation_prompt=True"
        lines = [turns, f"text = tokenizer.apply_chat_template(turns, {options})"]
        text, special = "text", "add_special_tokens=False, "  # the template writes its own
    else:
        text = r'prompt + "\n"'
    return "\n".join(
        [
            *lines,
            f'ids = tokenizer({text}, {special}return_tensors="pt")',
            "options = dict(max_new_tokens=256, do_sample=False)",
            "made = model.generate(ids.input_ids, attention_mask=ids.attention_mask, **options)",
            f"print(tokenizer.decode(made[0, {first}:], skip_special_tokens=True))",
        ]
    )


MODELS = ("this model", "before distillation", "teacher")


def _results(task: TaskResults, method: str, start: str) -> str:
    rows = [[TITLES[metric], *_values(task, metric, method, start)] for metric in task.metrics]
    return table(["metric", *MODELS], rows)


def _test_sets(results: ExperimentResults, task: TaskResults, method: str, start: str) -> str:
    """The sets that tested this task's students, by the primary metric; empty where none did."""
    tested = [test_set for test_set in results.test_sets if test_set.card.tests == task.name]
    if not tested:
        return ""
    rows = [
        [
            test_set.name,
            f"{len(test_set.rows):,}",
            *_values(test_set, test_set.primary, method, start),
        ]
        for test_set in tested
    ]
    shown = table(["set", "rows", *MODELS], rows)
    return (
        f"\nOn sets of other origin that no model was trained or chosen on, "
        f"{TITLES[task.primary]}:\n\n{shown}\n"
    )


def _values(task: TaskResults, metric: str, method: str, start: str) -> list[str]:
    """Of `MODELS`."""
    names = (method, INSTRUCT_START if start == "instruct" else SFT_START, TEACHER_ROW)
    return [values_text(task.models[name].values(metric)) for name in names]


def _model(model: ModelFacts) -> str:
    name = model.origin.id or model.origin.name or model.size.architecture
    return plain_text(f"{name}, {model.size.parameters:,} parameters")
