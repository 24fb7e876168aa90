"""How long the stages that are due will take, from what they took before.

Every stage leaves its wall seconds in metrics/; those of the last run are the estimate, and for a
new cell of a matrix the mean of its other cells. They are scaled by the runs that a stage makes now
and made then, by a fixed piece of work, which the stage `base` times on the machine that it runs
on, and by what the stages of this run have taken so far. Runs nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from pipelines.calibration import fixed_work
from pipelines.parameters import PARAMETERS
from pipelines.yaml_text import read_yaml
from skd.errors import UserError

METRICS = Path("metrics")
# Lists in params.yaml: a stage that depends on them makes a run for each with each
_EACH = ("experiment.tasks", "experiment.seeds")
_UNREADABLE = (
    *(OSError, UserError, yaml.YAMLError),
    *(TypeError, KeyError, AttributeError, ArithmeticError),
)
# Share by which there must be more or fewer runs than before to be told
_NOTABLE = 0.05
# Seconds of stages that must be over before their pace says more than the fixed work does
_TELLING = 30.0


def recorded_seconds(root: Path, names: Sequence[str]) -> dict[str, float]:
    """Stage -> what it took when it last ran, where a file of metrics/ says so."""
    seconds = {}
    for name in names:
        path = root / METRICS / f"{name.replace('@', '/')}.json"
        took = _took(path)
        if took is not None and "seconds" in took:
            seconds[name] = took["seconds"]
    return seconds


def like_their_kin(names: Sequence[str], seconds: Mapping[str, float]) -> dict[str, float]:
    """Stage -> seconds, of those that never ran and are cells of a matrix of which others did."""
    matrices: dict[str, list[float]] = {}
    for name, took in seconds.items():
        matrices.setdefault(name.partition("@")[0], []).append(took)
    return {
        name: sum(kin) / len(kin)
        for name in names
        if name not in seconds and "@" in name and (kin := matrices.get(name.partition("@")[0]))
    }


def growth(root: Path, names: Sequence[str]) -> dict[str, float]:
    """Stage -> times as many runs as when it last ran; dvc.lock says what the parameters were."""
    try:
        lock = yaml.safe_load((root / "dvc.lock").read_text(encoding="utf-8"))["stages"]
        params = read_yaml(root / PARAMETERS)
        now = {path: _at(params, path) for path in _EACH}
        return {
            name: math.prod(
                len(now[path]) / len(was)
                for path, was in lock[name].get("params", {}).get(PARAMETERS.name, {}).items()
                if path in _EACH
            )
            for name in names
            if name in lock
        }
    except (
        OSError,
        UserError,
        yaml.YAMLError,
        TypeError,
        KeyError,
        AttributeError,
        ArithmeticError,
    ):
        return {}  # missing or damaged, which DVC will say


def _at(params: Mapping[str, Any], path: str) -> Any:
    section, _, name = path.partition(".")
    return params[section][name]


def slowness(root: Path) -> float | None:
    """How many times as long as the last run's machine this one takes; None: it was not timed."""
    took = _took(root / METRICS / "base.json")
    then = None if took is None else took.get("fixed_work")
    return None if then is None else fixed_work() / then


def about(seconds: float) -> str:
    """`40 s`, `12 min`, `3 h 20 min`"""
    if seconds < 90:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"


def _took(path: Path) -> Mapping[str, float] | None:
    try:
        took: Mapping[str, float] = json.loads(path.read_bytes())["took"]
        return {name: float(took[name]) for name in ("seconds", "fixed_work") if took.get(name)}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None  # missing, damaged, or it says nothing of it


@dataclass
class Countdown:
    """What is left while stages run one after the other."""

    # The stages that are due, in order
    names: Sequence[str]
    # Of those that ever ran
    seconds: Mapping[str, float]
    # Times as long as then; None: not known
    slowness: float | None
    # Of some of them: times as many runs as then
    growth: Mapping[str, float] = field(default_factory=dict)
    # Stages that have begun, and those of them that came from the cache
    begun: list[str] = field(default_factory=list)
    cached: set[str] = field(default_factory=set)
    # Seconds up to the last one's begin, and those of them in which stages ran
    elapsed: float = 0.0
    ran: float = 0.0

    @cached_property
    def guessed(self) -> dict[str, float]:
        return like_their_kin(self.names, self._grown)

    @cached_property
    def _grown(self) -> dict[str, float]:
        return {name: took * self.growth.get(name, 1.0) for name, took in self.seconds.items()}

    def opening(self) -> str:
        """What there is to do, before the first stage begins."""
        if not self.names:
            return "nothing to do: every stage is up to date"
        count = f"{len(self.names)} stage{'s' if len(self.names) > 1 else ''} to run"
        known = sum(self.seconds.get(name, 0.0) for name in self.names)
        if not known:
            return f"{count}; no earlier run says how long it takes"
        estimate = about(sum(map(self._took, self.names)) * (self.slowness or 1.0))
        why = f"the last run took {about(known)}"
        if self.slowness is not None:
            why += f" on a machine {self.slowness:.2f} times as fast"
        runs = sum(self._grown.get(name, 0.0) for name in self.names) / known
        if abs(runs - 1.0) > _NOTABLE:
            why += f", with now {runs:.1f} times as many runs"
        if self.guessed:
            why += f", and new ones ({len(self.guessed)}) are taken to be like those"
        return f"{count}, about {estimate}: {why}"

    def begin(self, name: str, elapsed: float, from_cache: bool = False) -> str:
        """A stage begins, `elapsed` seconds after the first one did, or its outputs are fetched."""
        if self.begun and self.begun[-1] not in self.cached:
            self.ran += elapsed - self.elapsed
        self.elapsed = elapsed
        self.begun.append(name)
        if from_cache:
            self.cached.add(name)
        return f"stage {len(self.begun)} of {len(self.names)}: {name}{self._left()}"

    def _left(self) -> str:
        rest = sum(map(self._took, set(self.names) - set(self.begun[:-1]) - self.cached))
        return f", about {about(rest * self._pace())} left" if rest else ""

    def _took(self, name: str) -> float:
        return self._grown.get(name, self.guessed.get(name, 0.0))

    def _pace(self) -> float:
        """Times as long as then, by the stages that have run where there are enough of them."""
        over = sum(self._took(name) for name in self.begun[:-1] if name not in self.cached)
        return self.ran / over if over >= _TELLING else self.slowness or 1.0
