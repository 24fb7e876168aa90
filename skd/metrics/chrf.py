"""chrF (Popović 2015) of a corpus and of single sentences, the best reference per example.

The numbers are sacrebleu's (`CHRF()` with its defaults: 6 character orders, no word orders,
beta 2, no white space). Its loops over every reference are replaced by one table per row of
references [references, n-grams]; `tests/metrics` proves that the numbers are equal.
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from sacrebleu.metrics.chrf import CHRF

from skd.metrics.base import Batch, References, Result, mean_result

ORDERS = CHRF.CHAR_ORDER
BETA_SQUARED = CHRF.BETA**2

Floats = NDArray[np.float64]


class ReferenceTable:
    """n-gram counts of the references of one example."""

    def __init__(self, references: References) -> None:
        counters = [_ngrams(reference) for reference in references]
        self.columns: dict[str, int] = {}
        for counter in counters:
            for ngram in counter:
                self.columns.setdefault(ngram, len(self.columns))
        self.counts = np.zeros((len(references), len(self.columns)), dtype=np.int32)
        for line, counter in enumerate(counters):
            self.counts[line, [self.columns[ngram] for ngram in counter]] = list(counter.values())
        self.totals = np.array([_totals(reference) for reference in references])  # [refs, orders]

    def statistics(self, output: str) -> tuple[NDArray[np.int64], float]:
        """Counts of the best reference [3, orders]: output, reference, matches; and its chrF."""
        known = [
            (column, len(ngram) - 1, count)
            for ngram, count in _ngrams(output).items()
            if (column := self.columns.get(ngram)) is not None
        ]
        matches = np.zeros((len(self.counts), ORDERS), dtype=np.int64)
        if known:
            columns, orders, counts = (np.array(part) for part in zip(*known, strict=True))
            common = np.minimum(self.counts[:, columns], counts)  # [refs, known n-grams]
            matches = (common @ np.eye(ORDERS)[orders]).astype(np.int64)  # exact below 2**53
        # an order that a reference is too short for does not count hits, nor misses
        output_totals = np.where(self.totals > 0, _totals(output), 0)
        scores = f_score(output_totals, self.totals, matches)
        best = int(scores.argmax())
        statistics = np.stack([output_totals[best], self.totals[best], matches[best]])
        return statistics, float(scores[best])


def f_score(
    output: NDArray[np.int64], reference: NDArray[np.int64], match: NDArray[np.int64]
) -> Floats:
    """chrF in percent from counts [..., orders]; orders without n-grams on a side are left out."""
    used = (output > 0) & (reference > 0)
    orders = np.maximum(used.sum(-1), 1)
    precision = (match / np.maximum(output, 1) * used).sum(-1) / orders
    recall = (match / np.maximum(reference, 1) * used).sum(-1) / orders
    below = BETA_SQUARED * precision + recall
    score: Floats = 100 * (1 + BETA_SQUARED) * precision * recall / np.where(below > 0, below, 1.0)
    return score


def _squeeze(text: str) -> str:
    return "".join(text.split())


def _ngrams(text: str) -> Counter[str]:
    """All orders in one counter: the length of an n-gram tells its order."""
    text = _squeeze(text)
    ends = range(1, len(text) + 1)
    return Counter(
        [text[end - order : end] for order in range(1, ORDERS + 1) for end in ends[order - 1 :]]
    )


def _totals(text: str) -> list[int]:
    length = len(_squeeze(text))
    return [max(length - order, 0) for order in range(ORDERS)]


@lru_cache(maxsize=4096)
def _table(references: References) -> ReferenceTable:
    return ReferenceTable(references)


@lru_cache(maxsize=1 << 16)
def _best(output: str, references: References) -> tuple[NDArray[np.int64], float]:
    return _table(references).statistics(output)


def _all(batch: Batch) -> list[tuple[NDArray[np.int64], float]]:
    return [_best(*pair) for pair in zip(batch.outputs, batch.references, strict=True)]


def _signature(batch: Batch) -> str:
    metric = CHRF()
    counts = {len(references) for references in batch.references}
    metric.num_refs = counts.pop() if len(counts) == 1 else -1  # -1: sacrebleu's "var"
    return str(metric.get_signature())


def chrf(batch: Batch) -> Result:
    """Corpus chrF: counts summed over the corpus, each example against its best reference."""
    total = sum(statistics for statistics, _ in _all(batch))
    return Result(float(f_score(*np.asarray(total))), _signature(batch))


def sentence_chrf(batch: Batch) -> Result:
    return mean_result([score for _, score in _all(batch)], f"sentence|{_signature(batch)}")
