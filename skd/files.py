"""Files and folders that appear whole or not at all.

Knows nothing of what is in them; imports nothing heavy.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from skd.errors import UserError


def write_folder(target: Path, fill: Callable[[Path], object]) -> None:
    """`fill` a temporary sibling, then put it in `target`'s place: never half a folder."""
    partial, former = (target.with_name(f".{target.name}.{name}") for name in ("partial", "former"))
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        fill(partial)
        if target.exists():  # away in one step: large folders take their time to be removed
            shutil.rmtree(former, ignore_errors=True)
            target.replace(former)
        partial.replace(target)
    finally:
        for left in (partial, former):
            shutil.rmtree(left, ignore_errors=True)


def write_files(target: Path, files: Mapping[str, str | bytes]) -> None:
    """A folder of these files and no others."""

    def fill(folder: Path) -> None:
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            (folder / name).write_bytes(data)

    write_folder(target, fill)


def write_text(target: Path, text: str) -> None:
    """Write a file in one step."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(target)


def write_json(target: Path, value: Any) -> None:
    write_text(target, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """A JSONL file of an earlier stage."""
    lines = _text(path).split("\n")
    if lines.pop():
        raise UserError(f"{path}: its last line is cut off; make it anew: `dvc repro`")
    rows = [_value(line, f"{path}, line {number}") for number, line in enumerate(lines, 1)]
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise UserError(f"{path}, line {number}: no JSON object; make it anew: `dvc repro`")
    return rows


def read_json(path: Path) -> Any:
    """A JSON file of an earlier stage."""
    return _value(_text(path), str(path))


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run `dvc repro` to make it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); make it anew: `dvc repro`") from None


def _value(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not valid JSON ({error}); make it anew: `dvc repro`") from None


def jsonl(rows: Sequence[Any]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
