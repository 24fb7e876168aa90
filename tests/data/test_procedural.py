"""Procedural splits: disjoint, deterministic, large enough, and independent of one another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from skd.data import procedural
from skd.data.generators.example import Example
from skd.data.record import normalised
from skd.data.settings import Data, Procedural
from skd.errors import UserError

TASKS = ("translation", "summarization", "arithmetic")


def wanted(task: str, **sizes: int | None) -> Data:
    settings: dict[str, Any] = {"train_size": 200, "validation_size": 50, "test_size": 80} | sizes
    return Data(task=task, source=Procedural(kind="procedural"), **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("task", TASKS)
def test_twenty_thousand_training_rows_are_distinct_and_disjoint_from_the_rest(task: str) -> None:
    splits = procedural.load(wanted(task, train_size=20_000, test_size=500), task)
    sources = {
        split: [normalised(row.source) for row in rows]
        for split, rows in splits.items()
        if split != "pretrain"
    }
    assert [len(sources[split]) for split in ("train", "validation", "test")] == [20_000, 50, 500]
    together = [source for texts in sources.values() for source in texts]
    assert len(set(together)) == len(together)
    held_out = {*sources["test"], *sources["validation"]}
    assert not held_out & {normalised(row.source) for row in splits["pretrain"]}
    assert len(splits["pretrain"]) > 0.9 * procedural.PRETRAIN_ROWS


@pytest.mark.parametrize("task", TASKS)
def test_more_training_rows_change_no_other_row(task: str) -> None:
    few, many = (procedural.load(wanted(task, train_size=n), task) for n in (100, 200))
    assert few["test"] == many["test"]
    assert few["validation"] == many["validation"]
    assert few["train"] == many["train"][:100]


def test_the_data_seed_changes_the_rows() -> None:
    first = procedural.load(wanted("arithmetic"), "arithmetic")
    second = procedural.load(
        Data(
            task="arithmetic",
            source=Procedural(kind="procedural"),
            train_size=200,
            validation_size=50,
            test_size=80,
            seed=1,
        ),
        "arithmetic",
    )
    assert first["test"] != second["test"]


def test_evaluation_rows_know_their_valid_set() -> None:
    splits = procedural.load(wanted("translation"), "translation")
    assert all(row.complete for split in ("validation", "test") for row in splits[split])
    assert all(len(row.references) > 1 for row in splits["test"])


def test_an_exhausted_generator_says_how_many_sources_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def three(n: int, rng: object) -> Iterator[Example]:
        for number in range(n):
            yield Example(f"{number % 3}", "x", ("x",), (1.0,))

    monkeypatch.setitem(procedural.GENERATE, "arithmetic", three)
    with pytest.raises(UserError, match=r"data\.sums\.test_size.* only 3 distinct .* of the 80"):
        procedural.load(wanted("arithmetic"), "sums")


def test_a_missing_size_is_named() -> None:
    with pytest.raises(UserError, match=r"data\.mt\.train_size"):
        procedural.load(wanted("translation", train_size=None), "mt")
