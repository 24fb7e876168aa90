"""What each stage took and where it ran, from every file of metrics/. Knows no stage by name.

A stage leaves `metrics/<stage>.json`, or `metrics/<stage>/<item>.json` for an item of its matrix,
with `seconds` and, mostly, `environment`: one that is added later is counted without a word here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from skd.report.reading.read import read_json
from skd.report.reading.run import Json
from skd.report.sections.tables import duration, number, table


@dataclass(frozen=True)
class Part:
    """One metrics file of a stage."""

    stage: str
    seconds: float
    environment: Json  # versions, device, machine; empty where the stage does not tell


def read_parts(root: Path, items: Collection[str]) -> list[Part]:
    """The parts of the run whose tasks, methods and students are `items`.

    A file of any other item was left by an earlier experiment and took no time of this one.
    """
    metrics = root / "metrics"
    paths = [*metrics.glob("*.json")]
    paths += [path for path in metrics.glob("*/*.json") if path.stem in items]
    found = []
    for path in sorted(paths):
        stage = path.relative_to(metrics).parts[0].removesuffix(".json")
        facts = read_json(path, stage)
        if "seconds" in facts:
            found.append(Part(stage, float(facts["seconds"]), facts.get("environment", {})))
    return found


def wall_time(parts: list[Part]) -> str:
    """A row per stage, the longest first, and their sum."""
    seconds: dict[str, list[float]] = {}
    for part in parts:
        seconds.setdefault(part.stage, []).append(part.seconds)
    whole = sum(part.seconds for part in parts)
    rows = [
        [stage, number(len(taken)), duration(sum(taken)), number(100 * sum(taken) / whole, 1)]
        for stage, taken in sorted(seconds.items(), key=lambda item: -sum(item[1]))
    ]
    rows.append(["**all**", number(len(parts)), f"**{duration(whole)}**", ""])
    return table(["stage", "parts", "time", "%"], rows)


def environment(parts: Iterable[Part]) -> list[tuple[str, str]]:
    """One line per key; several values where stages ran on different machines or versions."""
    found: dict[str, dict[str, None]] = {}
    for part in parts:
        for key, value in part.environment.items():
            found.setdefault(key, {})[str(value)] = None
    return [(key, " / ".join(values)) for key, values in found.items()]
