"""What one training run is made of.

Knows the table of methods, ids and where files are written. Refuses to know what is done with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from transformers import PreTrainedModel

from skd.engine.pair import Pair
from skd.results.runs import Validation
from skd.training.cross_tokenizer import Bridge
from skd.training.group import ALONE, Group
from skd.training.methods import METHODS, Method
from skd.training.out_of_memory import RowsAtOnce
from skd.training.responses import KnownResponses, Responder, StatesByExample
from skd.training.settings import Distill, MethodSettings, Optimisation

Validate = Callable[[PreTrainedModel], Validation]


@dataclass(frozen=True)
class TrainingRun:
    """What one training run is made of."""

    settings: MethodSettings
    distill: Distill
    pair: Pair
    known: KnownResponses
    max_new_tokens: int
    seed: int
    # Its metric selects the best weights
    validate: Validate
    # Holds the run's log, states and best weights
    scratch: Path
    # The teacher's states at known responses, where they are kept
    kept: StatesByExample = field(default_factory=dict)
    # To a teacher that reads other ids; None: it reads the student's
    bridge: Bridge | None = None
    # The processes that train it together, each on its own rows
    group: Group = ALONE
    description: str = ""
    progress: bool = False
    # Line of the progress bar
    position: int = 0
    # Of a batch; fewer once memory has run out
    rows_at_once: RowsAtOnce = field(default_factory=RowsAtOnce)

    @property
    def method(self) -> Method:
        return METHODS[self.settings.method]

    @property
    def optimisation(self) -> Optimisation:
        return self.distill.optimisation

    @property
    def responder(self) -> Responder:
        return Responder(
            self.method,
            self.settings.acceptance,
            self.distill,
            self.pair,
            self.known,
            self.max_new_tokens,
            self.kept,
            self.bridge,
        )
