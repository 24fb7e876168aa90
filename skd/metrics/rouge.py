"""ROUGE-1, ROUGE-2 and ROUGE-L (F1), the maximum over the references of an example.

The numbers are rouge-score's, whose tokenizer is used: lower case, ASCII letters and digits
only, no stemming. Its own longest common subsequence is a Python table of n x m cells, too
slow for dozens of references; here the subsequence is found with bit-parallel arithmetic on
one integer (Hyyrö 2004). `tests/metrics` proves that the numbers are equal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import lru_cache, partial
from importlib.metadata import version

from rouge_score.tokenize import tokenize

from skd.metrics.base import (
    Batch,
    Metric,
    References,
    Result,
    mean_result,
    references_signature,
)

Tokens = tuple[str, ...]


@lru_cache(maxsize=1 << 16)
def _tokens(text: str) -> Tokens:
    return tuple(tokenize(text, None))


@lru_cache(maxsize=1 << 16)
def _ngrams(text: str, order: int) -> Counter[Tokens]:
    tokens = _tokens(text)
    return Counter(tokens[i : i + order] for i in range(len(tokens) - order + 1))


def common_subsequence(first: Tokens, second: Tokens) -> int:
    """Length of the longest common subsequence, in tokens."""
    places: dict[str, int] = {}
    for place, token in enumerate(first):
        places[token] = places.get(token, 0) | 1 << place
    every = (1 << len(first)) - 1
    row = every  # a 0 bit marks a place where the subsequence grew
    for token in second:
        hit = row & places.get(token, 0)
        row = (row + hit | row - hit) & every
    return len(first) - row.bit_count()


def _f1(matches: int, output_length: int, reference_length: int) -> float:
    """rouge-score's order of operations, so that the last bit agrees as well."""
    precision = matches / max(output_length, 1)
    recall = matches / max(reference_length, 1)
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


def _rouge_n(output: str, reference: str, order: int) -> float:
    ours, theirs = _ngrams(output, order), _ngrams(reference, order)
    matches = sum(min(count, theirs[ngram]) for ngram, count in ours.items())
    return _f1(matches, ours.total(), theirs.total())


def _rouge_l(output: str, reference: str) -> float:
    ours, theirs = _tokens(output), _tokens(reference)
    return _f1(common_subsequence(ours, theirs), len(ours), len(theirs))


VARIANTS: dict[str, Callable[[str, str], float]] = {
    "rouge_1": partial(_rouge_n, order=1),
    "rouge_2": partial(_rouge_n, order=2),
    "rouge_l": _rouge_l,
}


@lru_cache(maxsize=1 << 16)
def score_one(variant: str, output: str, references: References) -> float:
    """Best F1 of one output against its references, in percent."""
    compare = VARIANTS[variant]
    best = 0.0
    # an equal reference comes first: nothing can beat it
    for reference in (output, *references) if output in references else references:
        best = max(best, compare(output, reference))
        if best == 1.0:
            break
    return 100 * best


def _rouge(variant: str, batch: Batch) -> Result:
    scores = [
        score_one(variant, output, references)
        for output, references in zip(batch.outputs, batch.references, strict=True)
    ]
    signature = (
        f"{references_signature(batch)}|max over references|f1|stemmer:no|"
        f"rouge-score:{version('rouge-score')}"
    )
    return mean_result(scores, signature)


rouge_1: Metric = partial(_rouge, "rouge_1")
rouge_2: Metric = partial(_rouge, "rouge_2")
rouge_l: Metric = partial(_rouge, "rouge_l")
