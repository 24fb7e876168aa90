"""Stage `prepare`: one task's data, from its source to checked splits and a data card.

Thin: the work is `skd.data.prepare`'s. Knows nothing of models.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from pipelines import params as config
from pipelines.params import Params
from pipelines.stages.command import run as run_stage
from pipelines.stages.command import seconds
from skd.data.prepare import prepare as prepare_folder
from skd.errors import UserError
from skd.files import write_text

HELP = """\
Reads the row `data.TASK` of params.yaml and writes data/TASK/:
  train.jsonl, validation.jsonl, test.jsonl   one example a line, disjoint by source text
  pretrain.jsonl                              the base corpus (procedural sources only)
  card.json                                   counts, lengths, duplicates, hashes
and metrics/prepare/TASK.json, the card with the seconds it took.

Sources (data.TASK.source.kind): procedural, files (.jsonl .json .csv .parquet), hub.
"""


def prepare(params: Params, task: str, root: Path) -> dict[str, Any]:
    """Write `data/<task>` and `metrics/prepare/<task>.json`; return what the latter holds.

    Raises:
        UserError: unknown task, or data that cannot be used.
    """
    if task not in params.data:
        raise UserError(
            f"no task {task!r} under `data` in the parameters; there are: {', '.join(params.data)}"
        )
    card = prepare_folder(params.data[task], task, root)
    metrics = card | {"seconds": seconds()}
    write_text(
        root / "metrics" / "prepare" / f"{task}.json",
        json.dumps(metrics, ensure_ascii=False, indent=2) + "\n",
    )
    return metrics


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.stages.prepare",
        description=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("task", metavar="TASK", help="a row of `data` in params.yaml")
    arguments = parser.parse_args(argv)
    metrics = prepare(config.load(), arguments.task, Path())
    rows = ", ".join(f"{split} {facts['rows']}" for split, facts in metrics["splits"].items())
    print(f"data/{arguments.task}: {rows} ({metrics['seconds']:.1f} s)")


if __name__ == "__main__":
    run_stage(main)
