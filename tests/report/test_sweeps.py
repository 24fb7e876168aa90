"""Values of a setting are told apart where they differ, and rarely where they do not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from skd.report.sections.sweeps import section
from skd.report.verdicts.comparison import Word
from skd.report.verdicts.sweeps import sweep_verdicts
from skd.results.analyses import SweepRuns
from skd.results.runs import Validation
from tests.report.conftest import trained_run

TASK, MARGIN = "summarization", 2.0
RUN = trained_run(50.0)


def sweep(metrics: Callable[[int, int], float], values: int = 5, seeds: int = 4) -> SweepRuns:
    """metrics: (place of the value, seed) -> the run's validation metric."""
    runs = {
        f"v{value}": {
            str(seed): replace(RUN, validation=Validation(metrics(value, seed), kl=0.5))
            for seed in range(seeds)
        }
        for value in range(values)
    }
    return SweepRuns("skd", "acceptance.value", [*range(seeds)], 100, {TASK: TASK}, {TASK: runs})


def words(made: SweepRuns) -> dict[str, Word]:
    """Value -> how the first one stands to it."""
    return {each.other: each.word for each in sweep_verdicts(made, MARGIN)[TASK].verdicts}


def drawn(rng: np.random.Generator, means: list[float]) -> SweepRuns:
    """Runs that spread by 2 points, with 3 points of their seed's."""
    of_seed = rng.normal(0, 3, 4)
    return sweep(lambda value, seed: means[value] + of_seed[seed] + rng.normal(0, 2), len(means))


@pytest.mark.parametrize("values", [2, 4, 7])
def test_a_table_of_values_that_do_nothing_rarely_holds_a_verdict(values) -> None:
    rng = np.random.default_rng(values)
    tables = [words(drawn(rng, [50.0] * values)) for _ in range(200)]
    wrong = sum(bool({Word.BETTER, Word.WORSE} & {*table.values()}) for table in tables)
    assert wrong <= 0.05 * len(tables) + 6


def test_a_large_difference_is_found_whatever_the_seeds_have_in_common() -> None:
    rng = np.random.default_rng(0)
    tables = [words(drawn(rng, [50.0, 50.0, 38.0, 62.0])) for _ in range(50)]
    assert sum(table["v2"] is Word.BETTER for table in tables) >= 45
    assert sum(table["v3"] is Word.WORSE for table in tables) >= 45


def test_the_table_shows_how_each_value_stands_to_the_first() -> None:
    text = section("k", drawn(np.random.default_rng(1), [50.0, 50.0, 20.0]), MARGIN)
    first, _, last = [line.split(" | ") for line in text.splitlines() if line.startswith("| v")]
    assert first[2] == "–"
    assert last[2].endswith(" ▼")
    assert last[2].startswith("-")
    assert "for these examples alone" in text


@pytest.mark.parametrize("seeds", [1, 2])
def test_too_few_runs_have_no_verdict(seeds) -> None:
    made = sweep(lambda value, seed: 50.0 + 20 * value + seed, 3, seeds)
    assert sweep_verdicts(made, MARGIN) == {}
    assert "gainst the first" not in section("k", made, MARGIN)


def test_a_value_alone_stands_against_nothing() -> None:
    made = sweep(lambda _, seed: 50.0 + seed, values=1)
    assert words(made) == {}
    assert "| v0 | 51.5 ± 2.1 | – |" in section("k", made, MARGIN)
