"""Words and tools that the settings of all rooms share; the settings stand in their rooms.

Knows no section of `params.yaml` and no torch.
"""

from __future__ import annotations

import dataclasses
import json
import reprlib
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, ValidationError

STRICT = ConfigDict(extra="forbid", strict=False)


def _no_truth_value(value: Any) -> Any:
    """Python counts `true` as 1; whoever writes it for a number means something else."""
    if isinstance(value, bool):
        raise ValueError("a truth value is no number")
    return value


_LARGEST = 2**53  # above it JSON's numbers are no longer exact everywhere
Positive = Annotated[int, Field(gt=0, lt=_LARGEST), BeforeValidator(_no_truth_value)]
Count = Annotated[int, Field(ge=0, lt=_LARGEST), BeforeValidator(_no_truth_value)]
# Of random draws; folders are named after it
Seed = Count
Finite = Annotated[float, Field(allow_inf_nan=False), BeforeValidator(_no_truth_value)]
PositiveNumber = Annotated[Finite, Field(gt=0.0)]
NotNegative = Annotated[Finite, Field(ge=0.0)]
Fraction = Annotated[Finite, Field(ge=0.0, le=1.0)]
Probability = Annotated[Finite, Field(gt=0.0, le=1.0)]
# Folders and files are named after it
Name = Annotated[str, Field(pattern=r"^[a-z0-9_]+$", max_length=60)]


def _fit_for_a_file_system(path: str) -> str:
    if any(len(part.encode()) > 255 for part in path.split("/")):
        raise ValueError("a name of more than 255 bytes is none for a file")
    return path


# Of a file or folder
PathText = Annotated[
    str,
    Field(pattern=r"^[^\x00-\x1f\x7f]+$", max_length=1000),
    AfterValidator(_fit_for_a_file_system),
]


def _once(values: list[Any]) -> list[Any]:
    for value, count in Counter(values).items():
        if count > 1:
            raise ValueError(f"{value!r} stands twice; remove one")
    return values


# Each of them is run once
Names = Annotated[list[Name], AfterValidator(_once)]
SomeNames = Annotated[Names, Field(min_length=1)]
SomeSeeds = Annotated[list[Seed], Field(min_length=1), AfterValidator(_once)]
# On the Hub: the owner, where there is one, and the name; files are looked for under it
HubId = Annotated[str, Field(pattern=r"^\w[\w.-]*(/\w[\w.-]*)?$", max_length=200)]

# In what a model's weights are held. Of int8 and nf4 those of linear layers alone are (the output
# embedding is none of them), and what is left is bfloat16: skd/models/quantised.py
Weights = Literal["float32", "bfloat16", "int8", "nf4"]

_MOST = 20  # complaints that are shown
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80


def describe_errors(error: ValidationError, prefix: str = "") -> list[str]:
    """Pydantic's complaints as sentences that name the parameter.

    prefix: the path of the section that was checked, where that was not the whole file.
    """
    # A default that depends on a wrong parameter is no mistake of its own.
    own = [entry for entry in error.errors() if entry["type"] != "default_factory_not_called"]
    more = [f"and {len(own) - _MOST} complaints more"] if len(own) > _MOST else []
    return [_sentence(entry, prefix) for entry in own[:_MOST]] + more


def _sentence(error: Any, prefix: str) -> str:
    where = ".".join(str(part)[:80] for part in (prefix, *error["loc"]) if part != "")
    if error["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"unknown parameter {where!r}; remove it or correct its name"
    if error["type"] == "missing":
        return f"parameter {where!r} is missing"
    message = error["msg"].removeprefix("Value error, ")
    return f"{where}: {message} (got {_SHORT.repr(error['input'])})" if where else message


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
