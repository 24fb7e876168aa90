"""One procedural example, and the small tools every generator shares.

A generator knows a latent state (a date, a dialogue's plot, a problem) and every way it
accepts to express it, each with a weight. This module knows nothing of any task, of files
or of tokens.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Example:
    """`references` and `weights` run side by side; the weights sum to 1.

    `target` was drawn from the references by weight.
    """

    source: str
    target: str
    references: tuple[str, ...]
    weights: tuple[float, ...]
    pattern: str | None = None  # of the valid set; None: the references are all of it

    def accepts(self, text: str) -> bool:
        """Whether the whole text is one of the valid outputs."""
        if self.pattern is None:
            return text in self.references
        return re.fullmatch(self.pattern, text) is not None


def from_weighted(source: str, options: Iterable[tuple[str, float]], rng: random.Random) -> Example:
    """An example whose valid set is exactly the listed options (equal texts are merged)."""
    merged: dict[str, float] = {}
    for text, weight in options:
        merged[text] = merged.get(text, 0.0) + weight
    total = math.fsum(merged.values())
    references = tuple(merged)
    weights = tuple(weight / total for weight in merged.values())
    target = rng.choices(references, weights)[0]
    return Example(source, target, references, weights)


def entropy(weights: Iterable[float]) -> float:
    """Shannon entropy in nats: what a perfect teacher would still not know."""
    return -math.fsum(w * math.log(w) for w in weights if w > 0)


def pick(rng: random.Random, options: Sequence[T]) -> T:
    """`rng.choice` without its rejection loop: generation is part of a timed experiment."""
    return options[int(rng.random() * len(options))]
