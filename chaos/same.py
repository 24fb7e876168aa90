"""Whether an experiment that was struck has come to what one has that was left alone.

Outputs without seconds are compared byte by byte, and by the hash that DVC wrote of them. Files
with seconds are compared in all that is no measure of the machine. What the report draws and writes
in words is made of these files and shows seconds throughout: it must be there.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import yaml
from safetensors.numpy import load_file

# Keys and columns that measure the machine
MEASURED = re.compile(r"took|second|phases|peak_memory")
# Of weights, where a step was made in other parts
_ROUNDING = 1e-3


def differences(
    struck: Path, alone: Path, stages: Collection[str], rounding: bool = False
) -> list[str]:
    """What the stages' outputs differ in; empty: nothing.

    rounding: weights may differ in their last digits, and the files that depend on them in more.
    """
    found = []
    now, then = _outs(struck), _outs(alone)
    for stage in stages:
        if stage not in now:
            found.append(f"dvc.lock has no {stage}")
            continue
        for path, digest in then[stage].items():
            rule = _close if rounding else _rule(path)
            if now[stage].get(path) != digest and rule is _bytes:
                found.append(f"dvc.lock has another hash of {path}")
            found += _compare(struck, alone, path, rule)
    return found


def _outs(root: Path) -> dict[str, dict[str, str]]:
    """Stage -> output -> its hash."""
    lock = yaml.safe_load((root / "dvc.lock").read_text(encoding="utf-8"))
    return {
        name: {out["path"]: out["md5"] for out in stage.get("outs", [])}
        for name, stage in lock["stages"].items()
    }


def _compare(struck: Path, alone: Path, path: str, rule: Callable[[Path], Any]) -> list[str]:
    names = [_files(root, path) for root in (struck, alone)]
    if names[0] != names[1]:
        return [f"{path}: other files ({sorted(names[0] ^ names[1])})"]
    different = [
        name for name in sorted(names[0]) if not _equal(rule(struck / name), rule(alone / name))
    ]
    return [f"{name} differs" for name in different]


def _files(root: Path, path: str) -> set[str]:
    whole = root / path
    files = [whole] if whole.is_file() else [f for f in whole.rglob("*") if f.is_file()]
    return {str(file.relative_to(root)) for file in files}


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[k], other[k]) for k in one)
    if hasattr(one, "shape"):
        return bool(abs(one - other).max() <= _ROUNDING)
    return bool(one == other)


# ---------------------------------------------------------------------- what is compared
def _bytes(path: Path) -> bytes:
    return path.read_bytes()


def _unmeasured(path: Path) -> Any:
    """JSON, JSON lines or CSV without keys and columns that measure the machine."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".csv":
        rows = list(csv.DictReader(io.StringIO(text)))
        return [_without(row) for row in rows if not any(map(_measures, row.values()))]
    if path.suffix == ".json":
        return _without(json.loads(text))
    return path.read_bytes()


def _measures(value: Any) -> bool:
    """Whether a row of a table of numbers is about the machine."""
    return isinstance(value, str) and MEASURED.search(value) is not None


def _without(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without(v) for k, v in value.items() if not MEASURED.search(str(k))}
    if isinstance(value, list):
        return [_without(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _there(path: Path) -> bool:
    return path.stat().st_size > 0


def _close(path: Path) -> Any:
    return load_file(path) if path.suffix == ".safetensors" else _there(path)


# The first that fits the path of an output
_RULES: tuple[tuple[str, Callable[[Path], Any]], ...] = (
    (r"metrics/|logs/|reports/results\.csv", _unmeasured),
    (r"reports/|models/best", _there),
    (r"", _bytes),
)


def _rule(path: str) -> Callable[[Path], Any]:
    return next(rule for pattern, rule in _RULES if re.match(pattern, path))
