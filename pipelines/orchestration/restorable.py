"""Looks at what DVC would take from its cache instead of running a stage, before it does.

DVC protects an object of its cache by its mode, and trusts one that has this mode still: what a
disk has lost of it would come into the project and into what is made of it, and stand there as up
to date. Here an object that is not what its name says is taken out, so that DVC runs the stage.
Knows the layout of DVC's cache and imports nothing of DVC.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import yaml

from pipelines.orchestration.objects import FOLDER, Object, files, md5, within

# Below DVC's cache: objects by content, and which outputs a command had for which inputs
_OBJECTS, _RUNS = Path("files/md5"), Path("runs")


def take_out_damaged(cache: Path, lock: Path, commands: Collection[str]) -> list[str]:
    """Take out every damaged object of what these commands once made; a line about each.

    cache: DVC's, with its folders `files` and `runs`.
    lock: dvc.lock.
    """
    seen: dict[str, bool] = {}
    lines = []
    for listed in _outputs(cache, lock, commands):
        if not _whole(cache, listed, seen):
            lines.append(_line(listed))
        elif (
            listed.oid.endswith(FOLDER) and (place := within(cache / _OBJECTS, listed.oid)).exists()
        ):
            inside = files(listed, place)
            lines += [_line(one) for one in inside if not _whole(cache, one, seen)]
    return list(dict.fromkeys(lines))


def _line(damaged: Object) -> str:
    return f"took out of DVC's cache what is damaged: {damaged.shown}; the stage makes it again"


def _whole(cache: Path, one: Object, seen: dict[str, bool]) -> bool:
    """Whether the object is what its name says, or is not there; else it is removed."""
    if one.oid not in seen:
        place = within(cache / _OBJECTS, one.oid)
        seen[one.oid] = not place.exists() or md5(place) == one.oid.removesuffix(FOLDER)
        if not seen[one.oid]:
            place.unlink()
    return seen[one.oid]


def _outputs(cache: Path, lock: Path, commands: Collection[str]) -> Iterator[Object]:
    """What the commands made: when they last ran, and for other inputs."""
    stages = _read(lock).get("stages", {})
    runs = {path: _read(path) for path in sorted((cache / _RUNS).glob("*/*/*"))}
    for values in (*stages.values(), *runs.values()):
        if isinstance(values, dict) and str(values.get("cmd")) in commands:
            for out in values.get("outs", []):
                if "md5" in out:
                    yield Object(out["md5"], out["path"], str(values["cmd"]))


def _read(path: Path) -> dict[str, Any]:
    """Nothing of a file that cannot be read: DVC says so itself, or goes without."""
    try:
        values = yaml.load(path.read_bytes(), Loader=yaml.CSafeLoader)
    except (OSError, yaml.YAMLError):
        return {}
    return values if isinstance(values, dict) else {}
