"""Stage `prepare_tests`: the sets that are only tested, checked against what was trained on.

Thin: the work is `skd.data.prepare`'s. One stage makes all sets: they are read in seconds, and the
folder is there for `evaluate` to depend on when there is none. Refuses to know models.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pipelines.parameters import At, read_parameters
from pipelines.stages.command import METRICS, run_command, took
from skd.data.prepare import TEST_SETS, prepare_test
from skd.data.settings import Data
from skd.files import read_rows, write_folder, write_json
from skd.results.data import DataCard, PrepareTestsResult
from skd.results.files import read_result, write_result
from skd.settings import Name, Names

HELP = """\
Reads the rows of `data` that experiment.test_sets names and writes for each test_sets/NAME/:
  test.jsonl   one example a line; none whose source text its task's models have seen
  card.json    counts, lengths, duplicates, hashes
and test_sets/sets.json, which set tests which task's models, and metrics/prepare_tests.json.
"""
SEEN = ("train", "validation")  # the validation split chooses the weights


@dataclass(frozen=True)
class Parameters:
    names: Annotated[Names, At("experiment.test_sets")]
    data: dict[Name, Data]


def prepare_tests(rows: Mapping[str, Data], names: Sequence[str], root: Path) -> PrepareTestsResult:
    """Write `test_sets` and `metrics/prepare_tests.json`; return what the latter holds.

    Args:
        rows: the section `data`.
        names: those of its rows that are only tested.

    Raises:
        UserError: data that cannot be used, or that was trained on.
    """
    cards: dict[str, DataCard] = {}

    def fill(sets: Path) -> None:
        cards.update({name: _prepare(rows[name], name, root, sets) for name in names})
        write_json(sets / "sets.json", {name: card.tests for name, card in cards.items()})

    write_folder(root / TEST_SETS, fill)
    result = PrepareTestsResult(took(), cards)
    write_result(root / METRICS / "prepare_tests.json", result)
    return result


def _prepare(row: Data, name: str, root: Path, sets: Path) -> DataCard:
    task = str(row.tests)
    folder = root / "data" / task
    seen = {
        split: [str(example["source"]) for example in read_rows(folder / f"{split}.jsonl")]
        for split in SEEN
    }
    prompt = read_result(folder / "card.json", DataCard, f"prepare@{task}").prompt
    return prepare_test(row, name, prompt, seen, root, sets)


def main(argv: list[str] | None = None) -> None:
    argparse.ArgumentParser(
        prog="python -m pipelines.stages.prepare_tests",
        description=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args(argv)
    parameters = read_parameters(Parameters)
    result = prepare_tests(parameters.data, parameters.names, Path())
    for name, card in result.test_sets.items():
        print(f"{TEST_SETS}/{name}: {card.splits['test'].rows} rows for {card.tests}")


if __name__ == "__main__":
    run_command(main)
