"""Stage `prepare_tests`: the sets that are only tested, checked against what was trained on.

Thin: the work is `skd.data.prepare`'s. One stage for all sets: they are read in seconds, and
the folder is there for `evaluate` to depend on when there is none. Knows nothing of models.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from pipelines import params as config
from pipelines.params import Params
from pipelines.stages.command import run as run_stage
from pipelines.stages.command import seconds
from skd.data.prepare import TEST_SETS, prepare_test
from skd.files import read_json, read_rows, write_json

HELP = """\
Reads the rows of `data` that experiment.test_sets names and writes for each test_sets/NAME/:
  test.jsonl   one example a line; none whose source text its task's models have seen
  card.json    counts, lengths, duplicates, hashes
and test_sets/sets.json, which set tests which task's models, and metrics/prepare_tests.json.
"""
SEEN = ("train", "validation")  # the validation split chooses the weights


def prepare_tests(params: Params, root: Path) -> dict[str, Any]:
    """Write `test_sets` and `metrics/prepare_tests.json`; return the cards by name.

    Raises:
        UserError: data that cannot be used, or that was trained on.
    """
    shutil.rmtree(root / TEST_SETS, ignore_errors=True)
    cards = {name: _prepare(params, name, root) for name in params.experiment.test_sets}
    write_json(
        root / TEST_SETS / "sets.json", {name: card["tests"] for name, card in cards.items()}
    )
    write_json(root / "metrics" / "prepare_tests.json", {"seconds": seconds(), "test_sets": cards})
    return cards


def _prepare(params: Params, name: str, root: Path) -> dict[str, Any]:
    row = params.data[name]
    folder = root / "data" / str(row.tests)
    seen = {
        split: [str(example["source"]) for example in read_rows(folder / f"{split}.jsonl")]
        for split in SEEN
    }
    return prepare_test(row, name, read_json(folder / "card.json")["prompt"], seen, root)


def main(argv: list[str] | None = None) -> None:
    argparse.ArgumentParser(
        prog="python -m pipelines.stages.prepare_tests",
        description=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args(argv)
    cards = prepare_tests(config.load(), Path())
    for name, card in cards.items():
        print(f"{TEST_SETS}/{name}: {card['splits']['test']['rows']} rows for {card['tests']}")


if __name__ == "__main__":
    run_stage(main)
