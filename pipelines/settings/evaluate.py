"""How models are tested."""

from __future__ import annotations

from pydantic.dataclasses import dataclass

from skd.settings import STRICT, PathText, Positive


@dataclass(frozen=True, config=STRICT)
class Evaluate:
    batch_size: Positive = 128
    # Folder or Hub id of a COMET checkpoint; None: not scored
    comet: PathText | None = None
    # Folder of its encoder's config and tokenizer; None: beside it
    comet_encoder: PathText | None = None
