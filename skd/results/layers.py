"""What is known of a student that was made of its teacher's layers."""

from __future__ import annotations

from pydantic.dataclasses import dataclass

from skd.settings import STRICT


@dataclass(frozen=True, config=STRICT)
class LeftOut:
    """A round of the choice: the layer whose absence cost least."""

    layer: int
    # Without it and those of the rounds before; nats per response token
    loss: float


@dataclass(frozen=True, config=STRICT)
class LayerRounds:
    """The choice as far as it has come, kept in scratch."""

    # Per round, by layer: the loss without it and those of the rounds before
    rounds: list[dict[int, float]]


@dataclass(frozen=True, config=STRICT)
class LayerChoice:
    """layers.json beside the student's weights, and a part of metrics/base.json.

    Losses are cross-entropy on training rows that healing does not see, nats per response token.
    """

    # Layer numbers of the teacher, in order
    kept: list[int]
    # Training rows that were measured on
    rows: int
    # Response tokens in them
    tokens: int
    # Of the whole teacher
    whole_loss: float
    # Of the kept layers as the teacher has them
    cut_loss: float
    # Of as many layers evenly spaced
    even_loss: float
    # After healing; None: there was none
    healed_loss: float | None
    # By layer: what leaving it out alone adds to the loss; empty: the layers were named by hand
    importance: list[float]
    # In the order in which they went; empty likewise
    left_out: list[LeftOut]
