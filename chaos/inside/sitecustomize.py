"""Faults inside the project's own processes, which Python runs before anything else.

`chaos.struck` puts this folder on PYTHONPATH and says in CHAOS what to do: a name of FAULTS and its
numbers. A module is changed as soon as it is imported. Nothing happens without CHAOS.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import random
import sys
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any


def no_number(module: Any, step: int) -> None:
    """The loss of one step is no number."""
    loss = module.batch_loss

    def spoilt(run: Any, batch: Any, progress: float) -> Any:
        total, kl = loss(run, batch, progress)
        return (total * float("nan") if progress * run.optimisation.steps >= step else total), kl

    module.batch_loss = spoilt


def no_memory_once(module: Any, step: int) -> None:
    """Memory is refused in one step, once."""
    loss, left = module.batch_loss, [1]

    def refused(run: Any, batch: Any, progress: float) -> Any:
        if progress * run.optimisation.steps >= step and left:
            left.pop()
            raise MemoryError
        return loss(run, batch, progress)

    module.batch_loss = refused


def no_memory(module: Any, rows: int) -> None:
    """Memory is refused to more than so many rows at once."""
    loss = module.batch_loss

    def refused(run: Any, batch: Any, progress: float) -> Any:
        if len(batch.tokens) > rows:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
        return loss(run, batch, progress)

    module.batch_loss = refused


def clock(_module: ModuleType, seed: int) -> None:
    """The time of day jumps by up to a year, back and forth, at every hundredth reading or so."""
    real, drawn, shift = time.time, random.Random(f"{seed}-{os.getpid()}"), [0.0]

    def jumping() -> float:
        if drawn.random() < 0.01:
            shift[0] = drawn.uniform(-1.0, 1.0) * 365 * 86400
        return real() + shift[0]

    time.time = jumping


# name: (module that is changed, how)
FAULTS: dict[str, tuple[str, Callable[[Any, int], None]]] = {
    "no_number": ("skd.training.step", no_number),
    "no_memory_once": ("skd.training.step", no_memory_once),
    "no_memory": ("skd.training.step", no_memory),
    "clock": ("time", clock),
}


class Changed(importlib.abc.MetaPathFinder):
    """Imports one module as it is, and changes it then."""

    def __init__(self, name: str, change: Callable[[ModuleType], None]) -> None:
        self.name, self.change = name, change

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name != self.name:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def then_change(module: ModuleType) -> None:
                execute(module)
                self.change(module)

            spec.loader.exec_module = then_change  # type: ignore[method-assign]
        return spec


if "CHAOS" in os.environ:
    asked = json.loads(os.environ["CHAOS"])
    where, change = FAULTS[asked["fault"]]
    if where in sys.modules:
        change(sys.modules[where], asked["number"])
    else:
        sys.meta_path.insert(0, Changed(where, lambda module: change(module, asked["number"])))
