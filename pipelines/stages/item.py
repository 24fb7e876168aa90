"""The command line of a stage that does one row of a section: `distill skd`, `scaling narrow`.

Knows no stage and no section by name.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

from pipelines.params import Params, load
from pipelines.runs.workers import pick_device
from pipelines.stages.command import write_metrics
from skd.errors import UserError

Work = Callable[[Params, str], dict[str, Any]]  # the parameters, a row's name -> facts


def run_item(
    argv: Sequence[str] | None,
    work: Work,
    description: str | None,
    *,
    argument: str,
    section: str,
    metrics: str,
) -> None:
    """Do the row that the command line names and write metrics/<metrics>/<row>.json.

    Args:
        argument: what the row is called in `--help`.
        section: where it stands in params.yaml, with dots.

    Raises:
        UserError: there is no such row.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(argument, help=f"a row of `{section}` in params.yaml")
    name = vars(parser.parse_args(argv))[argument]
    params = load()
    if name not in attrgetter(section)(params):
        raise UserError(f"{section}.{name} is missing in params.yaml")
    write_metrics(f"{metrics}/{name}", pick_device(params.runtime), work(params, name))
