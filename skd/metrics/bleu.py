"""Corpus BLEU by sacrebleu, against all references of each example."""

from __future__ import annotations

from functools import lru_cache
from itertools import zip_longest

from sacrebleu.metrics.bleu import BLEU

from skd.metrics.base import Batch, References, Result


@lru_cache(maxsize=4)
def _scorer(references: tuple[References, ...]) -> BLEU:
    """sacrebleu wants one list per reference number; a missing reference is None there."""
    return BLEU(references=list(zip_longest(*references)))


def bleu(batch: Batch) -> Result:
    scorer = _scorer(batch.references)
    score = scorer.corpus_score(list(batch.outputs), None).score
    return Result(float(score), str(scorer.get_signature()))
