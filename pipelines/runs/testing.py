"""The job of testing one model on one split: greedy outputs and their scores.

What was tested stays in scratch under the hash of everything it depends on, so a change that
touches one method tests that method's students alone. Refuses to know stages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from pipelines.closure import code_of
from pipelines.runs.bars import rows_bar
from pipelines.runs.inputs import DATA, read_card, test_rows
from pipelines.runs.machine import Machine
from pipelines.runs.scratch import fingerprint, key
from pipelines.settings.evaluate import Evaluate
from skd.data.record import ExampleRow
from skd.engine.generation import generate
from skd.engine.positions import require_budget
from skd.engine.sources import decoder_start
from skd.metrics.base import Comet
from skd.metrics.comet import locate
from skd.metrics.score import score
from skd.models.encoding import decode, encode
from skd.models.folders import held_in
from skd.models.loading import load_model, load_tokenizer
from skd.models.pairs import common_vocabulary
from skd.models.settings import Budget
from skd.results.evaluation import ALL_SEEDS, OutputRecord
from skd.tasks import TASKS


@dataclass(frozen=True)
class TestSplit:
    """Test rows, and how they are put to the models of a task."""

    # Whose models are scored
    task: str
    # A name of `skd.tasks`' table
    kind: str
    prompt: str
    budget: Budget
    rows: list[ExampleRow]


@dataclass(frozen=True)
class TestedModel:
    name: str
    # A seed or ALL_SEEDS
    seed: str
    # Metric -> percent
    system: dict[str, float]
    # Metric -> how it was computed
    signatures: dict[str, str]
    # Metric -> why
    not_scored: dict[str, str]
    records: list[OutputRecord]


@dataclass(frozen=True)
class Testing:
    """The job that tests one model on a split."""

    # For people, in the records
    model: str
    # None: no experiment seed touches it
    seed: int | None
    folder: Path
    split: TestSplit
    settings: Evaluate
    # Type of the device that it is tested on
    device: str

    kind: ClassVar = TestedModel

    @property
    def key(self) -> str:
        dependencies = (
            self.model,
            self.seed,
            fingerprint(self.folder),
            vars(self.split),
            self.settings,
            self._comet_files(),
            self.device,
            code_of("pipelines.runs.testing"),
        )
        return f"test-{self.split.task}-{self.model}-{key(*dependencies)}"

    def _comet_files(self) -> str | None:
        """A hash of the checkpoint's files, which another download may have replaced."""
        if self.settings.comet is None or "comet" not in TASKS[self.split.kind].metrics:
            return None
        return locate(self.settings.comet, self.settings.comet_encoder).fingerprint

    def make(self, machine: Machine, _folder: Path, line: int) -> TestedModel:
        return _test(self, machine, line)


def own_split(task: str, budgets: dict[str, Budget]) -> TestSplit:
    """The test split of a task."""
    return _load_split(DATA / task, task, budgets)


def test_split(folder: Path, budgets: dict[str, Budget]) -> TestSplit:
    """A set that is only tested, for the models of the task that its card names."""
    return _load_split(folder, str(read_card(folder).tests), budgets)


def _load_split(folder: Path, task: str, budgets: dict[str, Budget]) -> TestSplit:
    card = read_card(folder)
    budget = budgets.get(folder.name, budgets[task])
    if budget.too_long == "drop":  # training rows may go, but test rows must all be scored
        budget = replace(budget, too_long="truncate")
    return TestSplit(task, card.task, card.prompt, budget, test_rows(folder))


def _test(job: Testing, machine: Machine, line: int) -> TestedModel:
    split = job.split
    tokenizer = load_tokenizer(job.folder)
    model = load_model(job.folder, machine.device, weights=held_in(job.folder))
    start = decoder_start(model)
    require_budget(model, split.budget.max_prompt_tokens, split.budget.max_new_tokens, len(start))
    vocabulary = common_vocabulary(tokenizer, model)
    encoded = encode(split.rows, split.prompt, tokenizer, split.budget, start, vocabulary)
    prompts = [example.prompt for example in encoded.examples]
    with rows_bar(f"{split.task}-{job.model}", len(prompts), machine, line) as bar:
        length, size = split.budget.max_new_tokens, job.settings.batch_size
        generated = generate(model, prompts, vocabulary, length, size, done=bar.update)
    outputs = [decode(ids, tokenizer) for ids in generated.responses]
    scores = score(
        split.kind,
        encoded.rows,
        outputs,
        generated.stopped,
        comet=_comet(job.settings, machine, line),
    )
    records = [
        OutputRecord(
            model=job.model,
            seed=job.seed,
            id=str(row["id"]),
            output=outputs[place],
            stopped=generated.stopped[place],
            tokens=len(generated.responses[place]),
            scores=_scores_of(scores.per_example, place),
        )
        for place, row in enumerate(encoded.rows)
    ]
    return TestedModel(
        name=job.model,
        seed=ALL_SEEDS if job.seed is None else str(job.seed),
        system={name: round(value, 4) for name, value in scores.system.items()},
        signatures=scores.signatures,
        not_scored=scores.not_scored,
        records=records,
    )


def _scores_of(per_example: Mapping[str, Sequence[float]], place: int) -> dict[str, float | None]:
    """An example's scores by metric; None where a metric says nothing of it."""
    values = {name: scores[place] for name, scores in per_example.items()}
    return {name: None if value != value else round(value, 4) for name, value in values.items()}


def _comet(settings: Evaluate, machine: Machine, line: int) -> Comet | None:
    if settings.comet is None:
        return None
    cache = machine.scratch / "comet" / "scores.sqlite"
    bar = line if machine.runtime.progress else None
    return Comet(settings.comet, settings.comet_encoder, cache, bar)
