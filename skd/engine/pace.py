"""The block size γ: how many tokens the student proposes before the teacher looks.

γ sets what sampling costs and never what it emits. Knows layers and counts; no tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from transformers import PreTrainedModel

from skd.engine.positions import decoder_layers, text_config

_MEMORY = 0.9  # of a count, from block to block
_PROPOSAL_IN_PASS = 0.125  # what each proposal adds to a teacher pass, as a share of it
PLAIN_BLOCK = 4  # without a teacher γ only sets how often ended rows are looked for


class Pace:
    """γ: fixed, or chosen before each block from the share of proposals accepted so far.

    A block of γ keeps 1 + a + … + a^(γ-1) tokens for γ student passes and one teacher pass, each
    proposal adding to that pass. The choice reads counts and layers, never a clock, so that a
    run repeats.
    """

    largest_auto = 8

    def __init__(
        self, block_size: int | Literal["auto"], models: Sequence[PreTrainedModel]
    ) -> None:
        self.fixed = None if block_size == "auto" else block_size
        self.accepted, self.judged = 4.0, 5.0  # a few imagined proposals, until there are real ones
        layers = [decoder_layers(text_config(model)) for model in models]
        self.student_share = layers[0] / layers[-1] if len(models) > 1 else None

    @property
    def largest(self) -> int:
        return self.fixed or self.largest_auto

    @property
    def block_size(self) -> int:
        if self.fixed or self.student_share is None:
            return self.fixed or PLAIN_BLOCK
        share, each = self.accepted / self.judged, self.student_share + _PROPOSAL_IN_PASS
        return max(
            range(1, self.largest_auto + 1),
            key=lambda n: sum(share**i for i in range(n)) / (1.0 + each * n),
        )

    def learn(self, kept: int, replaced: int) -> None:
        self.accepted = _MEMORY * self.accepted + kept
        self.judged = _MEMORY * self.judged + kept + replaced
