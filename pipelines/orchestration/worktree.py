"""An experiment in a git worktree of its own: other parameters, the same code, the same caches.

It begins with the workspace as it stands, changes that are not committed included, and leaves it
as it is. It shares DVC's cache and the scratch folder, so that what is known already is found.
Works through the command lines of git and DVC; knows no Prefect.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout
from ruamel.yaml import YAML

from pipelines.parameters import PARAMETERS
from pipelines.yaml_text import read_yaml
from skd.errors import UserError

EXPERIMENTS = Path(".scratch/experiments")
# Where people put data and models
INPUTS = (Path("input/data"), Path("input/models"))
# As a git reference and as a folder; forms check it, too
NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"
OVERRIDE = r"^[^=\s]+=.*$"
_DVC = [sys.executable, "-m", "dvc"]


@contextmanager
def worktree(root: Path, name: str, overrides: Sequence[str]) -> Iterator[Path]:
    """A folder that holds the project with these parameters, as long as the body lasts.

    Args:
        overrides: `methods.skd.acceptance.value=5`; the value is YAML.

    Raises:
        UserError: the name or an override is wrong, or the name is taken.
    """
    _check_name(root, name)
    folder = root / EXPERIMENTS / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder.with_name(f".{name}.lock"), timeout=0):
            _remove(root, folder)  # of one that was killed
            _git(root, "worktree", "add", "--quiet", "--detach", str(folder))
            try:
                _take_over(root, folder)
                override(folder / PARAMETERS, overrides)
                _share(root, folder)
                yield folder
            finally:
                _remove(root, folder)
    except Timeout:
        raise UserError(f"an experiment {name!r} is running; choose another name") from None


def save(folder: Path, name: str, stages: Sequence[str]) -> None:
    """Save what these stages have made in the worktree as a DVC experiment of the project."""
    # One at a time: DVC's references for it (refs/exps/exec) are those of all worktrees.
    with FileLock(folder.with_name(".save.lock")):
        new = [word for out in _new_outputs(folder) for word in ("--include-untracked", out)]
        _run([*_DVC, "exp", "save", "--name", name, *new, *stages], folder)


def _new_outputs(folder: Path) -> list[str]:
    """Outputs of stages that belong to git and stand in no commit yet, metrics and reports."""
    lock = yaml.safe_load((folder / "dvc.lock").read_text(encoding="utf-8"))
    paths = [out["path"] for stage in lock["stages"].values() for out in stage.get("outs", [])]
    new = [Path(name) for name in _untracked(folder)]
    return [path for path in paths if any(one.is_relative_to(path) for one in new)]


def override(file: Path, overrides: Sequence[str]) -> None:
    """Set parameters in the file; the stage `code` checks what they say.

    Raises:
        UserError: an override is not KEY=VALUE, or its section is not there.
    """
    yaml_file = YAML()
    yaml_file.preserve_quotes = True
    yaml_file.width = 120
    document: Any = yaml_file.load(file.read_text(encoding="utf-8"))
    for text in overrides:
        path, equals, value = text.partition("=")
        if not equals or not re.fullmatch(OVERRIDE, text, re.DOTALL):
            raise UserError(f"override {text!r}: expected KEY=VALUE, such as report.margin=1.5")
        *sections, last = path.split(".")
        place = document
        for section in sections:
            place = place.get(section) if isinstance(place, dict) else None
        if not isinstance(place, dict):
            raise UserError(f"override {text!r}: {file.name} has no section {'.'.join(sections)}")
        try:
            place[last] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UserError(f"override {text!r}: the value is not valid YAML: {error}") from None
    with file.open("w", encoding="utf-8") as out:
        yaml_file.dump(document, out)


def experiment_commit(root: Path, name: str) -> str | None:
    """The commit of the newest DVC experiment of this name; None: there is none."""
    form = "--format=%(refname) %(objectname)"
    listed = _git(root, "for-each-ref", "--sort=creatordate", form, "refs/exps")
    commits = dict(line.split() for line in listed.splitlines())
    found = [commit for ref, commit in commits.items() if ref.rsplit("/", 1)[1] == name]
    return found[-1] if found else None


def _check_name(root: Path, name: str) -> None:
    if not re.fullmatch(NAME, name):
        raise UserError(f"experiment {name!r}: a name is letters, digits, dashes and underscores")
    if experiment_commit(root, name) is not None:
        raise UserError(
            f"there is an experiment {name!r}: choose another name, or `dvc exp remove {name}`"
        )


def _take_over(root: Path, folder: Path) -> None:
    """What stands in the workspace and in no commit: changed files and new ones."""
    changed = _listed(_git(root, "diff", "--name-only", "--no-renames", "-z", "HEAD"))
    new = _untracked(root)
    for name in changed:
        (folder / name).unlink(missing_ok=True)
    for name in (*changed, *new):
        source, target = root / name, folder / name
        if source.exists():  # else it was deleted
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)


def _share(root: Path, folder: Path) -> None:
    """DVC's cache and settings, files that users bring, and scratch, by hashes of contents."""
    settings = root / ".dvc" / "config.local"  # remotes and their keys
    if settings.exists():
        shutil.copy2(settings, folder / ".dvc" / "config.local")
    cache = _run([*_DVC, "cache", "dir"], root).strip()
    _run([*_DVC, "cache", "dir", "--local", cache], folder)
    _run([*_DVC, "checkout", "--quiet", "--allow-missing"], folder)
    for inputs in INPUTS:  # git ignores them
        for source in (root / inputs).glob("*"):
            if not (folder / inputs / source.name).exists():
                (folder / inputs / source.name).symlink_to(source.resolve())
    runtime = read_yaml(folder / PARAMETERS).get("runtime") or {}
    scratch = Path(runtime.get("scratch", ".scratch"))
    if not scratch.is_absolute():
        (root / scratch).mkdir(exist_ok=True)
        (folder / scratch).symlink_to((root / scratch).resolve())


def _remove(root: Path, folder: Path) -> None:
    """The folder, whatever a kill has left of it, and what git knows of it."""
    shutil.rmtree(folder, ignore_errors=True)
    _git(root, "worktree", "prune")


def _untracked(root: Path) -> list[str]:
    """Files that git neither knows nor ignores."""
    return _listed(_git(root, "ls-files", "--others", "--exclude-standard", "-z"))


def _listed(text: str) -> list[str]:
    return [name for name in text.split("\0") if name]


def _git(root: Path, *words: str) -> str:
    return _run(["git", *words], root)


def _run(command: list[str], folder: Path) -> str:
    env = os.environ | {"DVC_NO_ANALYTICS": "1"}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        words = " ".join(Path(word).name for word in command[:4])
        said = (done.stderr or done.stdout).strip()
        raise UserError(f"{words} in {folder} ended with status {done.returncode}: {said}")
    return done.stdout
