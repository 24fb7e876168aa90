"""How long the rows of a task are: as its prepared data says, else as its budget allows.

The longest row of a run's batches decides what memory it takes, and the schedule says which rows a
run sees, so nothing has to run to know it. Knows text only to count its tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.runs.inputs import DATA, training_data
from pipelines.runs.pruning import HEALING_BUDGET
from pipelines.runs.specs import subset
from skd.data.record import ExampleRow
from skd.data.settings import Data
from skd.errors import UserError
from skd.models.encoding import encode
from skd.models.loading import is_encoder_decoder, load_tokenizer
from skd.models.pairs import first_of_targets
from skd.models.settings import Budget, FolderModel, Models
from skd.training.schedule import batch_indices
from skd.training.settings import Optimisation

# Rows of a split whose size the parameters leave to the source
UNSAID = 1000
# The task of healing, whose rows are those of all tasks
HEALING = "healing"


@dataclass(frozen=True)
class Rows:
    """Rows as their lengths in tokens; one length stands for all where no more is known."""

    prompts: Sequence[int]
    # That are known before the run
    responses: Sequence[int]
    count: int

    @property
    def mean(self) -> tuple[float, float]:
        known = len(self.prompts)
        return sum(self.prompts) / known, sum(self.responses) / known


@dataclass(frozen=True)
class TaskLengths:
    """What is known of a task's rows before anything is trained."""

    budget: Budget
    # Rows of the two splits, as far as the parameters say
    sizes: tuple[int, int]
    # None: the budget stands for every row
    train: Sequence[ExampleRow] | None = None
    validation: Sequence[ExampleRow] = ()
    # Row id -> lengths of prompt and response; rows over the budget are left out
    known: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def seen(self, examples: int | None, seed: int) -> Rows:
        """The rows that a run with this seed sees. examples: how many; None: all."""
        if self.train is None:
            return self._at_most(examples or self.sizes[0])
        return self._rows(subset(self.train, examples, seed))

    def held_out(self, examples: int | None) -> Rows:
        """The first rows of the validation split. examples: how many; None: all."""
        if self.train is None:
            return self._at_most(examples or self.sizes[1])
        return self._rows(self.validation[:examples])

    def _at_most(self, count: int) -> Rows:
        return Rows([self.budget.max_prompt_tokens], [self.budget.max_new_tokens], count)

    def _rows(self, rows: Sequence[ExampleRow]) -> Rows:
        most = (self.budget.max_prompt_tokens, self.budget.max_new_tokens)
        lengths = [self.known[row["id"]] for row in rows if row["id"] in self.known]
        prompts, responses = zip(*(map(min, own, most) for own in lengths), strict=True)
        return Rows(prompts, responses, len(prompts))


def task_lengths(name: str, data: Data, budget: Budget, models: Models) -> TaskLengths:
    """Measured where the data is prepared and the tokenizer stands in a folder."""
    sizes = (data.train_size or UNSAID, data.validation_size or UNSAID)
    at_most = TaskLengths(budget, sizes)
    tokenizer = models.teacher
    if not (DATA / name / "card.json").exists() or not isinstance(tokenizer, FolderModel):
        return at_most
    task, folder = training_data(name, budget), Path(tokenizer.path)
    rows = [*task.train, *task.validation]
    try:
        loaded = load_tokenizer(folder)
        # Of what a decoder begins with the number counts.
        start = (0, *first_of_targets(loaded)) if is_encoder_decoder(folder) else ()
        encoded = encode(rows, task.prompt, loaded, budget, start)
    except UserError:  # the stage that reads them says what is wrong
        return at_most
    known = {
        row["id"]: (len(example.prompt), len(example.response))
        for row, example in zip(encoded.rows, encoded.examples, strict=True)
    }
    return TaskLengths(budget, sizes, task.train, task.validation, known)


def healing_lengths(tasks: Sequence[str], data: Mapping[str, Data], models: Models) -> TaskLengths:
    """Of the training rows of all tasks, as healing reads them."""
    own = {task: task_lengths(task, data[task], HEALING_BUDGET, models) for task in tasks}
    sizes = (sum(one.sizes[0] for one in own.values()), 1)
    if any(one.train is None for one in own.values()):
        return TaskLengths(HEALING_BUDGET, sizes)
    rows = [
        ExampleRow(id=f"{task}-{row['id']}", source=row["source"], target=row["target"])
        for task, one in own.items()
        for row in one.train or ()
    ]
    known = {
        f"{task}-{row}": lengths for task, one in own.items() for row, lengths in one.known.items()
    }
    return TaskLengths(HEALING_BUDGET, sizes, rows, rows[:1], known)


def widest(rows: Rows, optimisation: Optimisation, seed: int, sampled: int | None) -> int:
    """Tokens of the longest row of all batches that a run trains on.

    sampled: the longest response where it is sampled; None: the rows' own.
    """
    count, size = len(rows.prompts), optimisation.batch_size
    steps = min(optimisation.steps, -(-count // size))  # an epoch has all rows
    places = {place for step in range(steps) for place in batch_indices(count, size, step, seed)}
    responses = rows.responses if sampled is None else [sampled] * count
    return max(rows.prompts[place] + responses[place] for place in places)
