"""The sizes of the models that an experiment asks for, from configurations that are at hand.

Refuses to know methods and devices.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PretrainedConfig

from pipelines.planning.sizes import Sizes, measured
from skd.models.procedural import procedural_config
from skd.models.settings import FolderModel, HubModel, LayersModel, Models, StudentModel

# Configurations of models on the Hub, for machines that do not reach it: ID.json
SHAPES = Path("profiles/shapes")


@dataclass(frozen=True)
class Unknown:
    """A model whose configuration is not at hand, and why."""

    name: str
    reason: str


def sizes_of(settings: StudentModel, models: Models) -> Sizes | Unknown:
    """Of one model of the section `models`; a student of kind `layers` is a part of its teacher."""
    if isinstance(settings, LayersModel):
        whole = sizes_of(models.teacher, models)
        layers = settings.count or len(settings.keep or [])
        return whole if isinstance(whole, Unknown) else part_of(whole, layers)
    name = _name(settings)
    try:
        config, origin = _config(settings, models)
        return measured(config, name, origin, models.trust_remote_code)
    except Exception as error:  # a wrong config raises what it comes upon: TypeError, KeyError, …
        return Unknown(name, (str(error).strip().splitlines() or [type(error).__name__])[0])


def part_of(whole: Sizes, layers: int) -> Sizes:
    """A model with `layers` of the layers."""
    outside = whole.embedding * (1 if whole.tied else 2) + whole.hidden
    each = (whole.parameters - outside) // whole.layers
    share = {
        name: (count * layers // whole.layers, sides * layers // whole.layers)
        for name, (count, sides) in whole.linear.items()
    }
    return replace(
        whole,
        name=f"{layers} layers of {whole.name}",
        parameters=outside + layers * each,
        layers=layers,
        linear=share,
    )


def _name(settings: StudentModel) -> str:
    if isinstance(settings, HubModel):
        return settings.id
    return Path(settings.path).name if isinstance(settings, FolderModel) else settings.kind


def _config(settings: StudentModel, models: Models) -> tuple[PretrainedConfig, str]:
    """A model's configuration and where it was read: files that are here, before the Hub."""
    trust: dict[str, Any] = {"trust_remote_code": models.trust_remote_code}
    if isinstance(settings, FolderModel):
        path = Path(settings.path).expanduser()
        return AutoConfig.from_pretrained(path, local_files_only=True, **trust), "its folder"
    if not isinstance(settings, HubModel):
        assert not isinstance(settings, LayersModel)
        return procedural_config(settings, models.vocabulary), "params.yaml"
    shape = SHAPES / f"{settings.id}.json"
    options = {"revision": settings.revision, **trust}
    try:
        found = AutoConfig.from_pretrained(settings.id, local_files_only=True, **options)
        return found, "the Hub's cache"
    except OSError:
        if shape.exists():
            return AutoConfig.from_pretrained(shape), str(shape)
    return AutoConfig.from_pretrained(settings.id, **options), "the Hub"
