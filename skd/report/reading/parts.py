"""What each stage took and where it ran, from every file of metrics/. Knows no stage by name.

A stage leaves `metrics/STAGE.json`, or `metrics/STAGE/ITEM.json` for an item of its matrix, with
what it took: a stage that is added later is counted without a word here.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass as plain_dataclass
from pathlib import Path

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from skd.results.files import read_result
from skd.results.took import Took


@dataclass(frozen=True, config=ConfigDict(extra="ignore"))
class _AnyResult:
    """What all results have in common; those of `evaluate` about one method lack it."""

    took: Took | None = None


@plain_dataclass(frozen=True)
class Part:
    """One metrics file of a stage."""

    stage: str
    took: Took


def read_parts(root: Path, items: Collection[str]) -> list[Part]:
    """The parts of the experiment whose tasks, methods and students are `items`.

    A file of any other item was left by an earlier experiment and took no time of this one.
    """
    metrics = root / "metrics"
    paths = [*metrics.glob("*.json")]
    paths += [path for path in metrics.glob("*/*.json") if path.stem in items]
    parts = []
    for path in sorted(paths):
        stage = path.relative_to(metrics).parts[0].removesuffix(".json")
        took = read_result(path, _AnyResult, stage).took
        if took is not None:
            parts.append(Part(stage, took))
    return parts


def environments(parts: Collection[Part]) -> list[tuple[str, str]]:
    """One line per key; several values where stages ran on different machines or versions."""
    values: dict[str, dict[str, None]] = {}
    for part in parts:
        for key, value in part.took.environment.items():
            values.setdefault(key, {})[value] = None
    return [(key, " / ".join(each)) for key, each in values.items()]
