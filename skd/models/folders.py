"""What a model folder says: a model in it, or one elsewhere, and in what its weights are held.

A model folder is either a Hugging Face folder or holds `reference.json`, which names one
elsewhere: a user's folder, or a Hub id at a commit. Refuses to load anything.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic.dataclasses import dataclass

from skd.errors import UserError
from skd.models.settings import Languages
from skd.results.files import read_result, write_result
from skd.settings import STRICT, Weights

REFERENCE = "reference.json"
_WEIGHTS = "weights.json"


@dataclass(frozen=True, config=STRICT)
class ModelReference:
    """reference.json: where a model is, a folder or an id on the Hub, instead of a copy of it."""

    path: str | None = None
    # Of the folder's contents: a path says nothing of what is there
    sha256: str | None = None
    id: str | None = None
    # A commit of the Hub
    revision: str | None = None
    trust_remote_code: bool = False
    # That the tokenizer is set to
    languages: Languages | None = None


def write_reference(folder: Path, reference: ModelReference) -> None:
    """Make a model folder that names a model elsewhere."""
    write_result(folder / REFERENCE, reference)


def read_reference(folder: Path) -> ModelReference:
    """What `write_reference` recorded."""
    return read_result(folder / REFERENCE, ModelReference, "base")


def resolve(folder: Path) -> tuple[str, dict[str, Any]]:
    """Where a folder's model is, and the options that the library reads it with.

    Raises `UserError` where there is none.
    """
    if not (folder / REFERENCE).exists():
        if not (folder / "config.json").exists():
            raise UserError(f"{folder}: no model here (config.json is missing)")
        return str(folder), {"local_files_only": True, "trust_remote_code": False}
    reference = read_reference(folder)
    # Said either way: the library asks on the terminal where nothing is
    options = {"trust_remote_code": reference.trust_remote_code}
    if reference.path is None:
        return str(reference.id), {"revision": reference.revision, **options}
    if not Path(reference.path).is_dir():
        raise UserError(
            f"{reference.path}: no such model folder, which the stage `base` was given; correct "
            "models.*.path in params.yaml, or, where the project or the model has moved, "
            "`dvc repro -f base`"
        )
    return reference.path, {"local_files_only": True, **options}


@dataclass(frozen=True, config=STRICT)
class HeldWeights:
    """weights.json: in what the model of a folder is held wherever it is not trained."""

    weights: Weights


def hold_in(folder: Path, weights: Weights | None) -> None:
    """Have a model folder say in what its model is held; None: nothing."""
    if weights is not None:
        write_result(folder / _WEIGHTS, HeldWeights(weights))


def held_in(folder: Path) -> Weights | None:
    """What `hold_in` recorded; None: the folder says nothing."""
    path = folder / _WEIGHTS
    return read_result(path, HeldWeights, "base").weights if path.exists() else None
