"""The exact state of a run between two optimiser steps.

Safetensors only. A state needs no random numbers: they are functions of seed and step
(`skd.engine.seeding`). Knows nothing of what is trained.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim import Optimizer

from skd.files import write_folder


def save_state(
    target: Path, model: torch.nn.Module, optimizer: Optimizer, counts: dict[str, Any]
) -> None:
    """Write weights, optimiser moments and what the run has counted, the step among it."""

    def fill(folder: Path) -> None:
        save_file(_trainable(model), folder / "model.safetensors")
        moments = {
            f"{index}.{name}": value.contiguous()
            for index, state in optimizer.state_dict()["state"].items()
            for name, value in state.items()
        }
        save_file(moments, folder / "optimizer.safetensors")
        (folder / "counts.json").write_text(json.dumps(counts), encoding="utf-8")

    write_folder(target, fill)


def load_state(source: Path, model: torch.nn.Module, optimizer: Optimizer) -> dict[str, Any] | None:
    """Restore what `save_state` wrote and return its counts; None if there is no state."""
    if not source.exists():
        return None
    parameters = load_file(source / "model.safetensors")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(parameters[name])
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in load_file(source / "optimizer.safetensors").items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    counts: dict[str, Any] = json.loads((source / "counts.json").read_text(encoding="utf-8"))
    return counts


def _trainable(model: torch.nn.Module) -> dict[str, Tensor]:
    # named_parameters names a tied tensor once; a state dict would name it twice.
    return {name: value.detach().contiguous() for name, value in model.named_parameters()}
