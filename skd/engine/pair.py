"""The two models of a run. Knows neither files nor how the models are used."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedModel

from skd.engine.sequences import Vocabulary


@dataclass(frozen=True)
class Pair:
    """A student, its teacher and the ids that they share."""

    student: PreTrainedModel
    # None: the run has no teacher
    teacher: PreTrainedModel | None
    vocabulary: Vocabulary
