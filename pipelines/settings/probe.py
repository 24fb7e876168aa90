"""What is probed after training."""

from __future__ import annotations

from pydantic.dataclasses import dataclass

from skd.settings import STRICT, Name, Positive


@dataclass(frozen=True, config=STRICT)
class Probe:
    """How far students and teacher agree, and what students are worth as drafts."""

    # Rows of `methods`; the untrained students are always probed
    methods: list[Name]
    # First rows of the validation split
    examples: Positive = 64
    # Of them decoded one by one, timed
    drafted: Positive = 4
    # Of the interleaved prefixes
    k: Positive = 25
