"""Stage `prepare`: one task's data, from its source to checked splits and a data card.

Thin: the work is `skd.data.prepare`'s. Refuses to know models.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pipelines.parameters import At, read_parameters
from pipelines.stages.command import METRICS, run_command, took
from skd.data.prepare import prepare as prepare_folder
from skd.data.settings import Data
from skd.results.data import PrepareResult
from skd.results.files import write_result

HELP = """\
Reads the row `data.TASK` of params.yaml and writes data/TASK/:
  train.jsonl, validation.jsonl, test.jsonl   one example a line, disjoint by source text
  pretrain.jsonl                              the base corpus (procedural sources only)
  card.json                                   counts, lengths, duplicates, hashes
and metrics/prepare/TASK.json, the card with the seconds it took.

Sources (data.TASK.source.kind): procedural, files (.jsonl .json .csv .parquet), hub.
"""


@dataclass(frozen=True)
class Parameters:
    row: Annotated[Data, At("data.{item}")]


def prepare(row: Data, task: str, root: Path) -> PrepareResult:
    """Write `data/<task>` and `metrics/prepare/<task>.json`; return what the latter holds.

    Raises:
        UserError: data that cannot be used.
    """
    card = prepare_folder(row, task, root)
    result = PrepareResult(took(), card)
    write_result(root / METRICS / "prepare" / f"{task}.json", result)
    return result


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.stages.prepare",
        description=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("task", metavar="TASK", help="a row of `data` in params.yaml")
    task = parser.parse_args(argv).task
    result = prepare(read_parameters(Parameters, task).row, task, Path())
    rows = ", ".join(f"{split} {each.rows}" for split, each in result.card.splits.items())
    print(f"data/{task}: {rows} ({result.took.seconds:.1f} s)")


if __name__ == "__main__":
    run_command(main)
