"""Faults of files and of the disk: cut off, changed, gone, read-only, no room left.

Each function takes a case and gives what it did, in a few words.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil

from chaos.case import Case, Command, MissedError, NotPossibleError, tail
from chaos.processes import VICTIMS, find, strike

_CACHE = ".dvc/cache/files"
_DISK_SAYS = ("disk is full", "No space left", "too little", "Read-only", "read-only")


# -------------------------------------------------------------------------- damage
def cut_off(path: Path, case: Case) -> None:
    _writable(path)
    os.truncate(path, case.drawn.randrange(path.stat().st_size) if path.stat().st_size else 0)


def changed(path: Path, case: Case) -> None:
    """One bit, as a disk may lose it: neither the size nor the time says so."""
    _writable(path)
    times = path.stat()
    content = bytearray(path.read_bytes())
    if content:
        content[case.drawn.randrange(len(content))] ^= 1 << case.drawn.randrange(8)
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def gone(path: Path, _case: Case) -> None:
    path.unlink()


Damage = Callable[[Path, Case], None]
DAMAGES: tuple[Damage, ...] = (cut_off, changed, gone)


def _writable(path: Path) -> None:
    path.chmod(path.stat().st_mode | 0o200)


def _one(files: Iterable[Path], case: Case) -> Path:
    found = sorted(file for file in files if file.is_file() and file.name != "job.json")
    if not found:
        raise MissedError("there was no such file")
    return case.drawn.choice(found)


def _spoil(files: Iterable[Path], case: Case, damages: tuple[Damage, ...] = DAMAGES) -> str:
    path, damage = _one(files, case), case.drawn.choice(damages)
    damage(path, case)
    return f"{path.relative_to(case.work)} {damage.__name__.replace('_', ' ')}"


# -------------------------------------------------------------------------- scratch
def checkpoint_spoilt(case: Case) -> str:
    """A stage is killed once it has a state to go on from, which is then damaged."""
    case.begin()
    command = case.start()
    command.wait_for(lambda: any(case.work.glob(".scratch/*/state/seal.json")))
    strike(find(command, VICTIMS["stage"]))
    command.end()
    states = [f for name in ("state", "best") for f in case.work.glob(f".scratch/*/{name}/**/*")]
    return _spoil(states, case)


def finished_work_spoilt(case: Case) -> str:
    """A stage that is to run again finds what it did before in scratch, damaged."""
    case.begin_after()
    known = set(_names(case.project.before(case.stage) / ".scratch"))
    new = [f for f in (case.work / ".scratch").rglob("*") if f.is_file()]
    new = [f for f in new if str(f.relative_to(case.work / ".scratch")) not in known]
    _forget(case)
    return _spoil(new, case)


def _forget(case: Case) -> None:
    """Of the stage DVC knows nothing any more, and its outputs are gone."""
    before = case.project.before(case.stage)
    for name in ("dvc.lock", ".dvc", "models", "records", "metrics", "logs"):
        here, then = case.work / name, before / name
        shutil.rmtree(here, ignore_errors=True) if here.is_dir() else here.unlink(missing_ok=True)
        if then.is_dir():
            shutil.copytree(then, here, symlinks=True)
        elif then.exists():
            shutil.copy2(then, here)


def _names(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.rglob("*")]


# ------------------------------------------------------------------ outputs and cache
def output_spoilt(case: Case) -> str:
    """A file of the stage's outputs is damaged in the workspace."""
    case.begin_after()
    return _spoil(_outputs(case), case, (cut_off, gone))


def cache_spoilt(case: Case) -> str:
    """A stage's outputs are gone, and an object of DVC's cache is damaged or gone."""
    case.begin_after()
    outputs = _outputs(case)
    if not outputs:
        raise MissedError("the stage has no outputs in the cache")
    objects = set(_names(case.project.before(case.stage) / _CACHE))
    own = [f for f in (case.work / _CACHE).rglob("*") if f.is_file()]
    own = [f for f in own if str(f.relative_to(case.work / _CACHE)) not in objects]
    for file in outputs:
        file.unlink()
    return _spoil(own, case)


def _outputs(case: Case) -> list[Path]:
    """Files of the stage that stand in DVC's cache."""
    before = set(_names(case.project.before(case.stage)))
    rooms = ("data", "test_sets", "models", "records", "fairness", "logs")
    files = [f for room in rooms for f in (case.work / room).rglob("*") if f.is_file()]
    return [f for f in files if str(f.relative_to(case.work)) not in before]


def lock_spoilt(case: Case) -> str:
    """What DVC writes in place is cut off: its record of the stages, or of processes at work."""
    case.begin_after()
    lock = case.work / ".dvc/tmp/rwlock"
    lock.write_text('{"write": {"' if case.drawn.random() < 0.5 else "", encoding="utf-8")
    cut_off(case.work / "dvc.lock", case)
    return "dvc.lock and rwlock cut off"


def metrics_spoilt(case: Case) -> str:
    """A file that git keeps is damaged: metrics, code lists, the report."""
    case.begin_after()
    rooms = ("metrics", "code", "reports")
    return _spoil([f for room in rooms for f in (case.work / room).rglob("*")], case)


# ---------------------------------------------------------------------------- the disk
def _mount(*words: str) -> None:
    done = subprocess.run(["mount", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotPossibleError(f"mount: {done.stderr.strip() or 'not permitted'}")


def unmount(case: Case) -> None:
    """Take away what a fault has mounted here."""
    below = [p.mountpoint for p in psutil.disk_partitions(all=True)]
    for point in sorted((p for p in below if Path(p).is_relative_to(case.work)), reverse=True):
        subprocess.run(["umount", "--lazy", point], check=True)


def disk_full(case: Case) -> str:
    """The project lies on a small disk of its own, which is full at some moment of the stage."""
    shutil.rmtree(case.work, ignore_errors=True)
    case.work.mkdir(parents=True)
    _mount("-t", "tmpfs", "-o", "size=2g", "tmpfs", str(case.work))
    state = case.project.before(case.stage)
    shutil.copytree(state, case.work, symlinks=True, dirs_exist_ok=True)
    used = shutil.disk_usage(case.work).used
    room = case.drawn.randrange(0, 400) * 1024
    _mount("-o", f"remount,size={used + room}", str(case.work))
    command = case.start()
    said = _refused(command)
    _mount("-o", "remount,size=2g", str(case.work))  # the remedy
    return f"{room // 1024} KiB of room: {said}"


def read_only(case: Case) -> str:
    """A folder that the stage or DVC writes to is read-only."""
    case.begin()
    rooms = (".scratch", ".dvc/cache", ".dvc/tmp", "models", "metrics", "records", "logs")
    there = [case.work / room for room in rooms if (case.work / room).is_dir()]
    folder = case.drawn.choice(there)
    _mount("--bind", str(folder), str(folder))
    _mount("-o", "remount,ro,bind", str(folder))
    said = _refused(case.start())
    subprocess.run(["umount", str(folder)], check=True)  # the remedy
    return f"{folder.relative_to(case.work)}: {said}"


def _refused(command: Command) -> str:
    """The line by which the command says why it ended."""
    status = command.end()
    if status == 0:
        raise MissedError("nothing was written there")
    lines = [line for line in command.said.splitlines() if any(w in line for w in _DISK_SAYS)]
    assert lines, f"no reason is given\n{tail(command.said)}"
    assert "Traceback" not in command.said, tail(command.said, 40)
    return lines[-1].strip()[:200]
