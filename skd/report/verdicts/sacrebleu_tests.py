"""sacrebleu's paired approximate randomisation (Riezler and Maxwell 2005) on corpus chrF and BLEU.

Two systems' outputs are exchanged row by row and the corpora are scored anew. Outputs in, p-values
out: knows no run and no verdict. `sacrebleu --paired-ar` on the same outputs gives the same
numbers, but for the bound in `paired`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import zip_longest
from typing import Any

import numpy as np
from sacrebleu.metrics.base import Metric
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.significance import PairedTest

from skd.metrics.base import References
from skd.metrics.chrf import ReferenceTable

SEED = "12345"  # sacrebleu's default
SEED_VARIABLE = "SACREBLEU_SEED"


class Chrf(CHRF):  # type: ignore[misc]
    """sacrebleu's chrF over `ReferenceTable`'s counts, which `tests/metrics` holds to be the same.

    Its own loop over the references takes half a minute where a row has 20 of them. Takes the
    outputs of any number of seeds, one seed after the other.
    """

    def __init__(self, references: Sequence[References]) -> None:
        super().__init__()
        counts = {len(row) for row in references}
        self.num_refs = counts.pop() if len(counts) == 1 else -1  # -1: "var" in the signature
        tables = [ReferenceTable(row) for row in references]
        self._rows = len(tables)
        self._counts = cache(lambda row, output: tables[row].statistics(output)[0])

    def _extract_corpus_statistics(self, hypotheses: Sequence[str], _references: Any) -> Any:
        """Per output: of each order the n-grams of output and reference, and the matches."""
        counts = [self._counts(place % self._rows, o) for place, o in enumerate(hypotheses)]
        # As floats, exact below 2**53: the sums over trials are then one fast matrix product.
        return np.stack(counts).transpose(0, 2, 1).reshape(len(counts), -1).astype(np.float64)


class Bleu(BLEU):  # type: ignore[misc]
    """sacrebleu's BLEU of the outputs of any number of seeds, one seed after the other."""

    def __init__(self, references: Sequence[References]) -> None:
        super().__init__(references=list(zip_longest(*references)))  # a list per reference number
        self._rows = len(references)

    def _extract_corpus_statistics(self, hypotheses: Sequence[str], _references: Any) -> Any:
        extract = super()._extract_corpus_statistics
        starts = range(0, len(hypotheses), self._rows)
        seeds = [extract(hypotheses[start : start + self._rows], None) for start in starts]
        return np.concatenate(seeds).astype(np.float64)


SCORERS: dict[str, Callable[[Sequence[References]], Metric]] = {"chrf": Chrf, "bleu": Bleu}


Results = dict[str, tuple[float, float, float, str]]  # other -> score, its score, p, signature


def paired(
    systems: Mapping[str, Sequence[str]], metrics: Mapping[str, Metric], trials: int
) -> dict[str, Results]:
    """The first system against each of the others, by metric.

    sacrebleu counts the trials that are strictly more extreme, so two systems that differ in few
    rows, or in none, would get p = 1 / (trials + 1). No exchange of k differing outputs can give a
    two-sided p below 2 / 2^k: the assignment as it is and its mirror image are as extreme. That
    bound is applied here; at k > 10 it does nothing.
    """
    first, *others = systems
    results: dict[str, Results] = {}
    for name, metric in metrics.items():
        with _seeded():
            test = PairedTest(list(systems.items()), {name: metric}, None, n_samples=trials)
        signatures, scores = test()
        ((shown, signature),) = signatures.items()
        ours, *theirs = scores[shown]
        results[name] = {
            other: (
                float(ours.score),
                float(result.score),
                max(float(result.p_value), _least_p(systems[first], systems[other])),
                str(signature),
            )
            for other, result in zip(others, theirs, strict=True)
        }
    return results


def _least_p(ours: Sequence[str], theirs: Sequence[str]) -> float:
    differing = sum(a != b for a, b in zip(ours, theirs, strict=True))
    return float(min(1.0, 2.0 ** (1 - differing)))


@contextmanager
def _seeded() -> Iterator[None]:
    """sacrebleu reads its seed from the environment; the report's is SEED whatever stands there."""
    before = os.environ.get(SEED_VARIABLE)
    os.environ[SEED_VARIABLE] = SEED
    try:
        yield
    finally:
        if before is None:
            del os.environ[SEED_VARIABLE]
        else:
            os.environ[SEED_VARIABLE] = before
