"""The training logs: one row an optimiser step, as the stage `distill` writes them in CSV.

Knows neither how a value was measured nor how it is shown.
"""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from skd.results.files import first_complaint, stale
from skd.settings import STRICT


@dataclass(frozen=True, config=STRICT)
class LogRow:
    """A row of logs/distill/METHOD/TASK.csv. Empty cells are None."""

    seed: int
    # Optimiser steps done
    step: int
    # The run's own objective, nats per response token
    loss: float
    # KL(teacher ‖ student), nats per response token
    kl: float | None = None
    # Percent of the proposals that this step's rollout made
    acceptance_rate: float | None = None
    # Mean tokens of a response
    response_length: float | None = None
    # Response tokens a second of this step
    tokens_per_second: float | None = None
    learning_rate: float | None = None
    # Before clipping
    grad_norm: float | None = None
    # Optimiser steps since the responses were made
    staleness: int | None = None
    # From here on since the run's beginning: seconds without validation, and tokens
    seconds: float | None = None
    trained_tokens: int | None = None
    sampled_tokens: int | None = None
    teacher_tokens: int | None = None
    # Of the step's validation, where there was one
    validation_loss: float | None = None
    validation_kl: float | None = None
    # The task's primary metric, percent
    validation_metric: float | None = None


COLUMNS = tuple(field.name for field in dataclasses.fields(LogRow))
# The name that cells behind the last column get
_MORE = "more cells than columns"
_ROW = TypeAdapter(LogRow)


def log_row(seed: int, values: dict[str, Any]) -> LogRow:
    """A row from what a run has logged of one step."""
    return _ROW.validate_python({"seed": seed, **values})


def log_text(rows: Iterable[LogRow]) -> str:
    """The rows as CSV, numbers with six digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([_cell(getattr(row, column)) for column in COLUMNS] for row in rows)
    return text.getvalue()


def read_log(path: Path, stage: str) -> list[LogRow]:
    """What `log_text` wrote. Raises `UserError` naming the file, the line and the stage."""
    rows = []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for number, cells in enumerate(csv.DictReader(file, restkey=_MORE, strict=True), 2):
                known = {column: cell for column, cell in cells.items() if cell}
                try:
                    rows.append(_ROW.validate_python(known))
                except ValidationError as error:
                    raise stale(path, f"line {number}: {first_complaint(error)}", stage) from None
    except FileNotFoundError:
        raise stale(path, "no such file", stage) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise stale(path, f"cannot be read ({error})", stage) from None
    return rows


def _cell(value: object) -> object:
    return f"{value:.6g}" if isinstance(value, float) else value
