"""Typed results to JSON files and back.

A file that is missing, is no JSON or does not hold what its type says is one `UserError` that names
the file, the entry and the stage to rerun. Knows no result by name.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from skd.errors import UserError
from skd.files import write_text

T = TypeVar("T")


def text_of(result: Any) -> str:
    """One dataclass as the text of a JSON file."""
    values = TypeAdapter(type(result)).dump_python(result, mode="json")
    return json.dumps(values, ensure_ascii=False, indent=2) + "\n"


def write_result(path: Path, result: Any) -> None:
    """One dataclass as a JSON file."""
    write_text(path, text_of(result))


def write_results(path: Path, results: list[Any]) -> None:
    """Dataclasses of one type as a JSONL file, one a line."""
    write_text(path, lines_of(results))


def lines_of(results: list[Any]) -> str:
    """The text of such a JSONL file."""
    if not results:
        return ""
    adapter = TypeAdapter(type(results[0]))
    return "".join(adapter.dump_json(result).decode() + "\n" for result in results)


def read_result(path: Path, kind: type[T], stage: str) -> T:
    """What `write_result` wrote. Raises `UserError` naming the file and the stage to rerun."""
    try:
        return TypeAdapter(kind).validate_json(_bytes(path, stage))
    except ValidationError as error:
        raise stale(path, first_complaint(error), stage) from None


def read_results(path: Path, kind: type[T], stage: str) -> list[T]:
    """What `write_results` wrote. Raises `UserError` naming the file, the line and the stage."""
    adapter = TypeAdapter(kind)
    results = []
    for number, line in enumerate(_bytes(path, stage).splitlines(), 1):
        try:
            results.append(adapter.validate_json(line))
        except ValidationError as error:
            raise stale(path, f"line {number}: {first_complaint(error)}", stage) from None
    return results


def stale(path: Path, what: str, stage: str) -> UserError:
    """A file that is absent or says too little, and the stage that makes it."""
    return UserError(f"{path}: {what}; rerun `dvc repro {stage}`")


def _bytes(path: Path, stage: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise stale(path, "no such file", stage) from None
    except OSError as error:
        raise stale(path, f"cannot be read ({error.strerror})", stage) from None


def first_complaint(error: ValidationError) -> str:
    """The first complaint: `tasks.translation.20.steps: Field required`."""
    complaint = error.errors()[0]
    where = ".".join(str(part) for part in complaint["loc"])
    if complaint["type"] == "json_invalid":
        return f"not valid JSON ({complaint['msg'].removeprefix('Invalid JSON: ')})"
    return f"{where}: {complaint['msg']}" if where else complaint["msg"]
