"""What a stage reads of `params.yaml`: a dataclass whose fields are the parameters.

A stage reads nothing else, and `dvc.yaml` tracks the same parameters (a test compares the two), so
no value can change a stage's work without DVC's knowledge. The section `runtime` says how this
machine works; stages may read it, and DVC does not track it. What the parameters say of each other
is `pipelines.schema`'s matter, which the first stage checks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from pipelines.yaml_text import read_yaml
from skd.errors import UserError
from skd.settings import Name, describe_errors

PARAMETERS = Path("params.yaml")
UNTRACKED = "runtime"
T = TypeVar("T")


@dataclass(frozen=True)
class At:
    """Where a field's parameter stands, with dots; `{item}` is the row that the stage works on.

    Written as `Annotated[list[str], At("experiment.tasks")]`. A field without it has the parameter
    of its own name.
    """

    path: str


def paths(kind: type) -> dict[str, str]:
    """Field -> path of its parameter, for a dataclass of parameters."""
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: _path(field.name, hints[field.name]) for field in dataclasses.fields(kind)}


def read_parameters(kind: type[T], item: str | None = None, file: Path = PARAMETERS) -> T:
    """The parameters that `kind` names, checked. `item` is the row that the stage works on.

    Raises:
        UserError: a parameter is missing, unknown or wrong; each one is named. So is an item that
            is no name: stages name folders after it.
    """
    document = read_yaml(file)
    if item is not None:
        _check_name(item)
    hints = get_type_hints(kind, include_extras=True)
    values, complaints = {}, []
    read: dict[str, Any] = {}
    for field, path in paths(kind).items():
        path = path.replace("{item}", item or "")
        try:
            raw = read[path] = _lookup(document, path)
            values[field] = TypeAdapter(hints[field]).validate_python(raw)
        except KeyError:
            complaints.append(f"parameter {path!r} is missing{_rows_beside(document, path, item)}")
        except ValidationError as error:
            complaints += describe_errors(error, path)
    if complaints:
        raise UserError("\n".join(f"{file}: {complaint}" for complaint in complaints))
    _read[file] = {path: raw for path, raw in read.items() if path != UNTRACKED}
    return kind(**values)


@contextmanager
def unchanged() -> Iterator[None]:
    """Raise `UserError` if what the body has read of a file says something else at its end.

    DVC notes what parameters are as a stage ends: it would take what the stage has made for made
    with values that it never saw.
    """
    _read.clear()
    yield
    for file, values in _read.items():
        document = read_yaml(file)
        if changed := [path for path, raw in values.items() if _now(document, path) != raw]:
            raise UserError(
                f"{file}: {', '.join(changed)} changed while this ran with the former value; run "
                "the same command again (finished runs are kept)"
            )


def _now(document: Any, path: str) -> Any:
    try:
        return _lookup(document, path)
    except KeyError:
        return None


# File -> path -> value
_read: dict[Path, dict[str, Any]] = {}


def _check_name(item: str) -> None:
    try:
        TypeAdapter(Name).validate_python(item)
    except ValidationError as error:
        raise UserError("\n".join(describe_errors(error, "the row's name"))) from None


def _path(name: str, hint: Any) -> str:
    marks = [argument.path for argument in get_args(hint)[1:] if isinstance(argument, At)]
    return marks[0] if marks else name


def _rows_beside(document: Any, path: str, item: str | None) -> str:
    """Where a row is asked for by its name: the rows that there are."""
    section, _, name = path.rpartition(".")
    try:
        return f"; there are: {', '.join(_lookup(document, section))}" if name == item else ""
    except KeyError:
        return ""


def _lookup(document: Any, path: str) -> Any:
    for part in path.split("."):
        if not isinstance(document, dict):
            raise KeyError(path)
        document = document[part]
    return document
