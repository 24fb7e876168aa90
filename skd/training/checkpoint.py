"""The exact state of a run between two optimiser steps, and weights that it may go back to.

Safetensors only. A state needs no random numbers: they are functions of seed and step
(`skd.engine.seeding`). Weights that are not trained are not in it. Knows no model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from skd.files import write_folder
from skd.training.optimiser import Trained

_WEIGHTS, _MOMENTS, _COUNTS = "model.safetensors", "optimizer.safetensors", "counts.json"


def save_state(target: Path, trained: Trained, counts: dict[str, Any]) -> None:
    """Write weights, optimiser moments and what the run has counted, the step among it."""

    def fill(folder: Path) -> None:
        save_file(_plain(trained.full), folder / _WEIGHTS)
        moments = {
            f"{index}.{name}": value.contiguous()
            for index, state in trained.optimizer.state_dict()["state"].items()
            for name, value in state.items()
        }
        save_file(moments, folder / _MOMENTS)
        (folder / _COUNTS).write_text(json.dumps(counts), encoding="utf-8")

    write_folder(target, fill)


def load_state(source: Path, trained: Trained) -> dict[str, Any] | None:
    """Restore what `save_state` wrote and return its counts; None if there is no state."""
    if not source.exists():
        return None
    trained.restore(load_file(source / _WEIGHTS))
    full = list(trained.full.values())
    # Not by `load_state_dict`, which would make codes of 8 bits floats
    for key, value in load_file(source / _MOMENTS).items():
        index, name = key.split(".", 1)
        parameter = full[int(index)]
        trained.optimizer.state[parameter][name] = value.to(parameter.device)
    counts: dict[str, Any] = json.loads((source / _COUNTS).read_text(encoding="utf-8"))
    return counts


def save_weights(folder: Path, trained: Trained) -> None:
    """Write the trained weights as the model reads them."""
    save_file(_plain(trained.held), folder / _WEIGHTS)


def load_weights(folder: Path, trained: Trained) -> None:
    """Restore what `save_weights` wrote, one tensor after the other."""
    with safe_open(folder / _WEIGHTS, framework="pt") as file:  # type: ignore[no-untyped-call]
        for name, held in trained.held.items():
            held.data.copy_(file.get_tensor(name))


def _plain(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().contiguous() for name, value in weights.items()}
