"""Words and tools that the settings of all rooms share; the settings stand in their rooms.

Knows no section of `params.yaml` and no torch.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import ConfigDict, Field, ValidationError

STRICT = ConfigDict(extra="forbid", strict=False)

Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
PositiveNumber = Annotated[Finite, Field(gt=0.0)]
NotNegative = Annotated[Finite, Field(ge=0.0)]
Fraction = Annotated[Finite, Field(ge=0.0, le=1.0)]
Probability = Annotated[Finite, Field(gt=0.0, le=1.0)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]


def describe_errors(error: ValidationError, prefix: str = "") -> list[str]:
    """Pydantic's complaints as sentences that name the parameter.

    prefix: the path of the section that was checked, where that was not the whole file.
    """
    # A default that depends on a wrong parameter is no mistake of its own.
    own = [entry for entry in error.errors() if entry["type"] != "default_factory_not_called"]
    return [_sentence(entry, prefix) for entry in own]


def _sentence(error: Any, prefix: str) -> str:
    where = ".".join(str(part) for part in (prefix, *error["loc"]) if part != "")
    if error["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"unknown parameter {where!r}; remove it or correct its name"
    if error["type"] == "missing":
        return f"parameter {where!r} is missing"
    message = error["msg"].removeprefix("Value error, ")
    return f"{where}: {message} (got {error['input']!r})" if where else message


def label(value: Any) -> str:
    """A swept value in a table: `5`, `min_prob 0.3`, `top_k 25 final_value=1`."""
    if not isinstance(value, Mapping):
        return str(value)
    told = [str(value[name]) for name in _TOLD_BY_PLACE if name in value]
    named = [f"{name}={x}" for name, x in value.items() if name not in _TOLD_BY_PLACE]
    return " ".join(told + named)


_TOLD_BY_PLACE = ("rule", "name", "value", "beta")


def plain(settings: Any) -> Any:
    """A dataclass as JSON values, for keys and cards."""
    if isinstance(settings, Mapping):
        return {key: plain(value) for key, value in settings.items()}
    if isinstance(settings, list | tuple):
        return [plain(value) for value in settings]
    return dataclasses.asdict(settings) if dataclasses.is_dataclass(settings) else settings  # type: ignore[arg-type]


def canonical(value: Any) -> str:
    """One text per value: the form that is hashed."""
    return json.dumps(plain(value), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
