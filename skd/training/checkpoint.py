"""The exact state of a run between two optimiser steps, and weights that it may go back to.

Safetensors only. A state needs no random numbers: they are functions of seed and step
(`skd.engine.seeding`). Weights that are not trained are not in it. What a fault of the machine has
damaged is not gone on from. Knows no model.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from skd.engine.shards import gathered, own, own_part
from skd.files import write_folder
from skd.seals import damaged, seal
from skd.training.group import ALONE, Group
from skd.training.optimiser import Trained

_WEIGHTS, _MOMENTS, _COUNTS = "model.safetensors", "optimizer.safetensors", "counts.json"


def save_state(
    target: Path, trained: Trained, counts: dict[str, Any], group: Group = ALONE
) -> None:
    """Write weights, optimiser moments and what the run has counted, the step among it.

    What is on disk does not depend on the number of processes; all of them call it.
    """
    held, state = list(trained.held.values()), trained.optimizer.state_dict()["state"]
    weights = {
        name: gathered(full, trained.held[name]).detach() for name, full in trained.full.items()
    }
    moments = {
        f"{index}.{name}": gathered(value, held[index])
        for index, values in state.items()
        for name, value in values.items()
    }

    def fill(folder: Path) -> None:
        _save(weights, folder / _WEIGHTS)
        _save(moments, folder / _MOMENTS)
        (folder / _COUNTS).write_text(json.dumps(counts), encoding="utf-8")
        seal(folder)

    if group.first:
        write_folder(target, fill)


def load_state(
    source: Path, trained: Trained, best: Path, group: Group = ALONE
) -> dict[str, Any] | None:
    """Restore what `save_state` wrote and return its counts; None if there is no whole state.

    All processes call it.

    best: folder of the best weights by step. Where those that the state counts are damaged, the
        run begins anew, too: it would have nothing to go back to.
    """
    if not source.exists():
        return None
    counts = _whole(source, best, group)
    if counts is None:
        return None
    trained.restore(load_file(source / _WEIGHTS))
    held, full = list(trained.held.values()), list(trained.full.values())
    # Not by `load_state_dict`, which would make codes of 8 bits floats
    for key, value in load_file(source / _MOMENTS).items():
        index, name = key.split(".", 1)
        parameter = full[int(index)]
        part = own_part(value, held[int(index)]) if value.ndim else value
        trained.optimizer.state[parameter][name] = part.to(parameter.device)
    return counts


def _whole(source: Path, best: Path, group: Group) -> dict[str, Any] | None:
    """The state's counts; None, and a line that says why, where it cannot be gone on from."""
    folder, file = source, damaged(source)
    if file is None:
        counts: dict[str, Any] = json.loads((source / _COUNTS).read_text(encoding="utf-8"))
        folder = best / str(counts["best_step"])
        if not counts["best_step"] or (file := damaged(folder)) is None:
            return counts
    group.wait()  # until all have seen it
    if group.first:
        print(f"{folder / file} is damaged or missing: the run begins anew", file=sys.stderr)
        shutil.rmtree(source)
    return None


def save_weights(target: Path, trained: Trained, group: Group = ALONE) -> None:
    """Write the trained weights as the model reads them; all processes call it."""
    weights = {name: gathered(own(held), held) for name, held in trained.held.items()}

    def fill(folder: Path) -> None:
        _save(weights, folder / _WEIGHTS)
        seal(folder)

    if group.first:
        write_folder(target, fill)


def load_weights(folder: Path, trained: Trained) -> None:
    """Restore what `save_weights` wrote, one tensor after the other."""
    with safe_open(folder / _WEIGHTS, framework="pt") as file:  # type: ignore[no-untyped-call]
        for name, held in trained.held.items():
            own(held).copy_(own_part(file.get_tensor(name), held))


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    save_file({name: value.contiguous() for name, value in tensors.items()}, path)
