"""How long the stages that are due will take, from what they took before.

Every stage leaves its wall seconds in metrics/. They are scaled by the runs that a stage makes now
and made then, by a fixed piece of work, which the stage `base` times on the machine that it runs
on, and by what the stages of this run have taken so far. Runs nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from pipelines.calibration import fixed_work
from pipelines.orchestration.tally import flat, tally
from pipelines.parameters import PARAMETERS
from pipelines.yaml_text import read_yaml
from skd.errors import UserError

METRICS = Path("metrics")
_UNREADABLE = (OSError, UserError, yaml.YAMLError, TypeError, KeyError, AttributeError)
# Share by which there must be more or less to do than before to be told
_NOTABLE = 0.05
# Seconds of stages that must be over before their pace says more than the fixed work does
_TELLING = 30.0


def recorded_seconds(root: Path) -> dict[str, float]:
    """Stage -> what it took when it last ran, where a file of metrics/ says so."""
    folder = root / METRICS
    took = {
        "@".join(path.relative_to(folder).with_suffix("").parts): _took(path)
        for path in sorted(folder.rglob("*.json"))
    }
    return {name: each["seconds"] for name, each in took.items() if each and "seconds" in each}


def expected_seconds(
    root: Path, names: Sequence[str], seconds: Mapping[str, float]
) -> dict[str, float]:
    """Stage -> what it would take on the last run's machine, where anything says so.

    What it took goes with its runs, of which dvc.lock says how many there were. Runs of a stage
    that had none take what those of `distill` took each, and a new cell of another matrix takes
    the mean of the other cells.
    """
    now, then = _runs(root, names, seconds)
    made = [name for name in then if name.startswith("distill@")]
    each = sum(seconds[name] for name in made) / (sum(then[name] for name in made) or 1)
    expected = {}
    for name in names:
        took = seconds.get(name, 0.0)
        if name not in now:
            expected[name] = took or _mean([seconds[cell] for cell in seconds if _kin(name, cell)])
        elif before := then.get(name):
            expected[name] = took * now[name] / before
        else:
            expected[name] = took + each * now[name]
    return {name: took for name, took in expected.items() if took}


def _runs(
    root: Path, names: Sequence[str], ran: Iterable[str]
) -> tuple[dict[str, int], dict[str, int]]:
    """Stage -> training runs as the parameters stand, and as they were when it ran."""
    try:
        params = flat(read_yaml(root / PARAMETERS))
        lock = yaml.safe_load((root / "dvc.lock").read_text(encoding="utf-8"))["stages"]
        locked = {name: lock[name].get("params", {}) for name in ran if name in lock}
        return (
            tally(dict.fromkeys(names, params)),
            tally({name: values.get(PARAMETERS.name, {}) for name, values in locked.items()}),
        )
    except _UNREADABLE:
        return {}, {}  # missing or damaged, which DVC will say


def _kin(name: str, other: str) -> bool:
    """Cells of one matrix"""
    return "@" in name and name.partition("@")[0] == other.partition("@")[0]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


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
    # Of those that ever ran: what they took, and what they would take now on that machine
    seconds: Mapping[str, float]
    expected: Mapping[str, float]
    # Times as long as then; None: not known
    slowness: float | None
    # Stages that have begun, and those of them that came from the cache
    begun: list[str] = field(default_factory=list)
    cached: set[str] = field(default_factory=set)
    # Seconds up to the last one's begin, and those of them in which stages ran
    elapsed: float = 0.0
    ran: float = 0.0

    def opening(self) -> str:
        """What there is to do, before the first stage begins."""
        if not self.names:
            return "nothing to do: every stage is up to date"
        count = f"{len(self.names)} stage{'s' if len(self.names) > 1 else ''} to run"
        known = sum(self.seconds.get(name, 0.0) for name in self.names)
        if not known:
            return f"{count}; no earlier run says how long it takes"
        estimate = about(sum(map(self._takes, self.names)) * (self.slowness or 1.0))
        why = f"the last run took {about(known)}"
        if self.slowness is not None:
            why += f" on a machine {self.slowness:.2f} times as fast"
        more = sum(map(self._takes, self.names)) / known
        if abs(more - 1.0) > _NOTABLE:
            why += f", with now {more:.1f} times as much to do"
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
        rest = sum(map(self._takes, set(self.names) - set(self.begun[:-1]) - self.cached))
        return f", about {about(rest * self._pace())} left" if rest else ""

    def _takes(self, name: str) -> float:
        return self.expected.get(name, 0.0)

    def _pace(self) -> float:
        """Times as long as then, by the stages that have run where there are enough of them."""
        over = sum(self._takes(name) for name in self.begun[:-1] if name not in self.cached)
        return self.ran / over if over >= _TELLING else self.slowness or 1.0
