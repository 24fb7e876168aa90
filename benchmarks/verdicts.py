"""How often the report's verdicts err, and what they find, on simulated tables of known truth.

`python -m benchmarks.verdicts` writes docs/verdicts.md. One thread, every random number from a
fixed seed. A table is what a task gives: scores of methods × seeds × examples, in percent. With
the same seed all methods see the same rows, so a part of the spread between runs is common to them.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from skd.report.verdicts.comparison import Comparison
from skd.report.verdicts.families import all_pairs, planned
from skd.report.verdicts.spread import fit

Floats = NDArray[np.float64]

PAGE = Path(__file__).resolve().parent.parent / "docs" / "verdicts.md"
EXAMPLES = 500
# Part of every seed. The rule's constants were chosen on draw 0, so the page is made with another.
DRAW = 1
METHODS, SEEDS = (2, 8, 14, 20), (3, 5, 8, 10)
LEADS = (2, 4, 6, 8, 12)
MEAN = 50.0
# Standard deviations in points: of an example for all methods, for one, and of an output.
COMMON, OWN, OUTPUT = 22.4, 11.2, 15.0
# Of a training run, drawn for each table; half of its variance is common to the methods of a seed.
RUNS = (1.0, 3.0)
TYPICAL_RUN = 2.0
SHARED = 0.5
UNEQUAL = (0.5, 2.0)  # times the usual spread of a method's runs, drawn for each method
UNSTABLE = (4.0, 8.0)  # and for the one unstable method, whichever it is
OLD_RESAMPLES = 2000

SPREADS = {
    "equal": "all methods spread alike",
    "unequal": "each method spreads 0.5 to 2 times as far",
    "unstable": "one method of the table spreads 4 to 8 times as far",
    "unstable and unequal": "both",
    "right or wrong": "one unstable method, scores of 0 or 100",
}


@dataclass(frozen=True)
class Cell:
    methods: int
    seeds: int
    spread: str
    run: tuple[float, float] = RUNS

    def tables(self, count: int) -> Iterator[tuple[Floats, int | None]]:
        """Scores [methods, seeds, examples] of equal methods, and which of them is unstable."""
        name = [self.methods, self.seeds, list(SPREADS).index(self.spread), int(10 * self.run[0])]
        rng = np.random.default_rng([*name, DRAW])
        for _ in range(count):
            yield self._table(rng)

    def _table(self, rng: np.random.Generator) -> tuple[Floats, int | None]:
        shape = (self.methods, self.seeds)
        run = rng.uniform(*self.run)
        factors = np.ones(self.methods)
        if "unequal" in self.spread:
            factors = np.exp(rng.uniform(np.log(UNEQUAL[0]), np.log(UNEQUAL[1]), self.methods))
        unstable = None
        if "unstable" in self.spread or self.spread == "right or wrong":
            unstable = int(rng.integers(self.methods))
            factors[unstable] = rng.uniform(*UNSTABLE)
        runs = rng.normal(0, run * np.sqrt(SHARED), self.seeds)
        runs = runs + rng.normal(size=shape) * (run * np.sqrt(1 - SHARED) * factors)[:, None]
        examples = rng.normal(0, COMMON, EXAMPLES)
        examples = examples + rng.normal(0, OWN, (self.methods, EXAMPLES))
        scores = MEAN + runs[:, :, None] + examples[:, None]
        scores += OUTPUT * rng.standard_normal((*shape, EXAMPLES), dtype=np.float32)
        if self.spread == "right or wrong":
            scores = 100.0 * (scores > MEAN)
        return scores, unstable


KINDS = ("reference", "pairs")
RULES = ("new", "old", "old, one lead")
Key = tuple[str, str]  # rule and kind of table
Rule = Callable[[Floats], Floats]  # planted differences -> words: -1, 0, 1


@dataclass
class Counts:
    """Of some tables: which hold a false verdict, and the share of planted leads found."""

    false: dict[Key, list[bool]]
    found: dict[tuple[Key, int], list[float]]

    def errs(self, rule: str, kind: str) -> float:
        return 100 * float(np.mean(self.false[rule, kind]))

    def finds(self, rule: str, kind: str, lead: int) -> float:
        return 100 * float(np.mean(self.found[(rule, kind), lead]))


def measure(cell: Cell, count: int) -> Counts:
    names = [f"method {i}" for i in range(cell.methods)]
    keys = list(product(RULES, KINDS))
    result = Counts({key: [] for key in keys}, {key: [] for key in product(keys, LEADS)})
    places = list(combinations(range(cell.methods), 2))
    for scores, unstable in cell.tables(count):
        model = fit({n: dict(enumerate(s)) for n, s in zip(names, scores, strict=True)})
        (star,) = planned(model, {names[0]: names[1:]}).values()
        matrix = all_pairs(model, star)
        for kind, found, of in (
            ("reference", star, places[: cell.methods - 1]),
            ("pairs", matrix, places),
        ):
            # A lead is planted of a stable method before stable ones: of the reference in its
            # own table, of another before others that are not the reference among all pairs.
            leader = 0 if kind == "reference" or cell.methods == 2 else 1
            if leader == unstable:
                leader += 1
            counted = [
                leader in pair and unstable not in pair and (kind == "reference" or 0 not in pair)
                for pair in of
            ]
            rules: dict[str, Rule] = {"new": NewRule(found), "old": OldRule(scores, of)}
            for name, words in rules.items():
                result.false[name, kind].append(bool(words(np.zeros(len(of))).any()))
            if (unstable == 0 and kind == "reference") or not any(counted):
                continue
            one = max(max(pair) for pair, counts in zip(of, counted, strict=True) if counts)
            for lead in LEADS:
                before_all = float(lead) * np.array([(a == leader) - (b == leader) for a, b in of])
                before_one = float(lead) * np.array([(b == one) - (a == one) for a, b in of])
                for name, words in rules.items():
                    seen = words(before_all) * np.sign(before_all) > 0
                    result.found[(name, kind), lead].append(float(seen[counted].mean()))
                alone = np.array([{leader, one} == set(pair) for pair in of])
                seen = rules["old"](before_one) * np.sign(before_one) > 0
                result.found[("old, one lead", kind), lead].append(float(seen[alone].mean()))
    return result


class NewRule:
    """Words (-1, 0, 1) with planted differences: no variance depends on them."""

    def __init__(self, comparisons: list[Comparison]) -> None:
        self.difference = np.array([c.difference for c in comparisons])
        self.half_width = np.array([c.half_width for c in comparisons])

    def __call__(self, shift: Floats) -> Floats:
        difference = self.difference + shift
        return np.sign(difference) * (np.abs(difference) > self.half_width)


class OldRule:
    """The rule before ADR 0015, as skd/metrics/statistics.py had it at commit c2b5749.

    t tests with a variance pooled over all methods, or the pair's own if larger, corrected by
    Holm, p not below the resampling test's smallest.

    Its bootstrap interval is left out: it changed no decision. So is the resampling test's p
    above its smallest: it is below 0.05 in most pairs of equal methods.
    """

    def __init__(self, scores: Floats, pairs: list[tuple[int, int]]) -> None:
        first, second = np.array(pairs).T
        seeds, examples = scores.shape[1:]
        own = scores.mean(2).var(1, ddof=1)
        columns = np.cov(scores.mean(1))
        variances = np.diag(columns)
        runs = np.maximum(2 * own.mean(), own[first] + own[second]) / seeds
        noise = (variances[first] + variances[second] - 2 * columns[first, second]) / examples
        self.error = np.sqrt(runs + noise)
        uncertain = runs**2 / (len(scores) * (seeds - 1)) + noise**2 / (examples - 1)
        self.freedom = (runs + noise) ** 2 / uncertain
        means = scores.mean((1, 2))
        self.difference = means[first] - means[second]

    def __call__(self, shift: Floats) -> Floats:
        difference = self.difference + shift
        p = 2 * stdtr(self.freedom, -np.abs(difference) / self.error)
        p = np.maximum(p, 1 / (OLD_RESAMPLES + 1))
        order = np.argsort(p)
        corrected = np.empty_like(p)
        corrected[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
        return np.sign(difference) * (corrected < 0.05)


Cells = dict[tuple[int, int, str], Counts]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.verdicts", description=__doc__)
    parser.add_argument("--tables", type=int, default=400, help="in each cell")
    count = parser.parse_args(argv).tables
    began = time.process_time()
    nulls: Cells = {}
    planted: Cells = {}
    for of in product(METHODS, SEEDS, SPREADS):
        methods, seeds, spread = of
        # Two methods are quick, and their exact test errs as often as it may.
        nulls[of] = measure(Cell(methods, seeds, spread), 4 * count if methods == 2 else count)
        shown = " ".join(f"{nulls[of].errs(*key):.1f}" for key in product(RULES[:2], KINDS))
        print(*of, "new, old:", shown, file=sys.stderr, flush=True)
    for of in product(METHODS[1:], SEEDS, ("equal", "unstable")):
        methods, seeds, spread = of
        cell = Cell(methods, seeds, spread, (TYPICAL_RUN, TYPICAL_RUN))
        planted[of] = measure(cell, count // 2)
        shown = " ".join(f"{planted[of].finds(*key, 6):.0f}" for key in product(RULES, KINDS))
        print(*of, "6 points:", shown, file=sys.stderr, flush=True)
    minutes = (time.process_time() - began) / 60
    PAGE.write_text(page(nulls, planted, count, minutes), encoding="utf-8")
    print(f"docs/{PAGE.name} is written after {minutes:.1f} CPU minutes")


def page(nulls: Cells, planted: Cells, count: int, minutes: float) -> str:
    every = [c.errs("new", kind) for c in nulls.values() for kind in KINDS]
    return f"""# How far a verdict can be trusted

`python -m benchmarks.verdicts` writes this page ({minutes:.0f} CPU minutes). The rule is
[ADR 0015](adr/0015-one-model.md). Simulated tables of methods × seeds × {EXAMPLES} examples whose
truth is known: examples spread by {COMMON:g} points for all methods and {OWN:g} more for each,
outputs by {OUTPUT:g}, training runs by {RUNS[0]:g} to {RUNS[1]:g} points, half of that variance
common to the methods of a seed. The rule's constants were chosen on tables of the same kind; these
are fresh ones, drawn once the constants stood.

## False verdicts

Share of the tables of equal methods that hold any verdict, in percent: the reference against the
others / all pairs, and in brackets the same by the former rule. {count} tables each (of two
methods {4 * count}), so a true share of 4 % shows as 2 to 6. The mean of the new rule is
{np.mean(every):.1f} %, the largest {max(every):.1f} %.

{_false(nulls)}
## Leads found

Share of the planted leads that are found, in percent, and in brackets by the former rule where the
leader leads all / only this one. Training runs spread by {TYPICAL_RUN:g} points; {count // 2}
tables each.

{_found(planted)}"""


def _false(nulls: Cells) -> str:
    head = "| spread | methods | " + " | ".join(f"{seeds} seeds" for seeds in SEEDS) + " |"
    rows = [head, "|---|--:" + "|---" * len(SEEDS) + "|"]
    for (spread, words), methods in product(SPREADS.items(), METHODS):
        cells = []
        for seeds in SEEDS:
            new, old = (
                " / ".join(
                    f"{nulls[methods, seeds, spread].errs(rule, kind):.1f}" for kind in KINDS
                )
                for rule in RULES[:2]
            )
            cells.append(f"{new} ({old})")
        rows.append(f"| {words} | {methods} | " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n"


def _found(planted: Cells) -> str:
    parts = []
    titles = ("A reference before others", "One method before another, in the table of all pairs")
    for kind, title in zip(KINDS, titles, strict=True):
        head = "| spread | methods | seeds | " + " | ".join(f"{n} points" for n in LEADS) + " |"
        rows = [head, "|---|--:|--:" + "|---" * len(LEADS) + "|"]
        for (methods, seeds, spread), counts in planted.items():
            cells = []
            for lead in LEADS:
                new, *old = (f"{counts.finds(rule, kind, lead):.0f}" for rule in RULES)
                cells.append(f"**{new}** ({' / '.join(old)})")
            rows.append(f"| {spread} | {methods} | {seeds} | " + " | ".join(cells) + " |")
        parts.append(f"### {title}\n\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    main()
