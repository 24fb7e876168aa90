"""What an experiment left, to and from DVC's default remote, every object checked by its contents.

DVC names an object by the MD5 of its contents, and by default believes what a remote sends. Here an
object that is not what its name says never gets into the cache: it is taken out of the remote and
named with the output that it belongs to. DVC then finds that output missing, so that one run makes
it, and what does not depend on it stays as it is. The layout of DVC's cache and lock file is known
here; what a remote is, DVC's Python API says, part of which is private
(`tests/pipelines/test_remote.py` holds the contract). Runs no stage and knows no Prefect.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from dvc.exceptions import DvcException
from dvc.repo import Repo

from pipelines.orchestration.objects import FOLDER, Object, files, md5, within
from pipelines.stages.command import run_command
from skd.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")
AT_ONCE = 8  # transfers


class Remote:
    """The default remote of a project, beside its cache."""

    def __init__(self, repo: Repo) -> None:
        remote = repo.cloud.get_remote(None, "pull")
        self.name: str = remote.name
        self.cache = _cache(repo)
        self.store: Any = remote.odb

    def fetch(self, oid: str) -> str | None:
        """Bring an object into the cache; gives what is wrong with it, None where it is whole."""
        target, source = within(self.cache, oid), self.store.oid_to_path(oid)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.partial")
        try:
            self.store.fs.get_file(source, str(partial))
            if md5(partial) != oid.removesuffix(FOLDER):
                self.store.fs.rm_file(source)
                return "was damaged and is taken out of it"
            partial.chmod(0o444)  # as DVC protects what the cache holds
            partial.replace(target)
        except FileNotFoundError:
            return "is missing"
        except Exception as error:  # each kind of remote has its own
            raise self._unusable(error) from error
        finally:
            partial.unlink(missing_ok=True)
        return None

    def put(self, oid: str) -> bool:
        """Put an object there, unless it is there in its whole length; gives whether it was not."""
        source, target = within(self.cache, oid), self.store.oid_to_path(oid)
        try:
            if self._length(target) == source.stat().st_size:
                return False
            self.store.fs.makedirs(self.store.fs.parent(target), exist_ok=True)
            self.store.fs.put_file(str(source), target)
        except Exception as error:
            raise self._unusable(error) from error
        return True

    def _length(self, target: str) -> int | None:
        try:
            return int(self.store.fs.info(target)["size"])
        except FileNotFoundError:
            return None

    def _unusable(self, error: Exception) -> UserError:
        return UserError(
            f"the remote {self.name!r} cannot be used: {type(error).__name__}: {error}; "
            "see docs/remotes.md"
        )


# ------------------------------------------------------------------------------- commands
def pull(root: Path) -> list[str]:
    """Bring from the remote what the cache lacks, and into the project what that lacks.

    Returns a line for each object that could not be had: the stage that makes it is then stale.

    Raises:
        UserError: there is no remote, or it cannot be used.
    """
    with _opened(root) as repo:
        remote, made = Remote(repo), outputs(repo)
        reasons = _fetched(remote, made)
        items = _with_files(made, remote.cache)
        reasons |= _fetched(remote, [item for item in items if item.oid not in reasons])
        lost = [item for item in items if item.oid in reasons]
        _checkout(repo, made, lost)
    return [
        f"the remote {remote.name!r}: {item.shown} {reasons[item.oid]}; the stage makes it again"
        for item in lost
    ]


def push(root: Path) -> list[str]:
    """Put into the remote what the cache has and the remote lacks, or has in another length.

    Raises:
        UserError: there is no remote, or it cannot be used.
    """
    with _opened(root) as repo:
        remote = Remote(repo)
        items = _with_files(outputs(repo), remote.cache)
        here = {item.oid for item in items if within(remote.cache, item.oid).is_file()}
        # A folder's list last: who finds it finds its files.
        new = sum(_at_once(remote.put, sorted(here, key=lambda oid: oid.endswith(FOLDER))))
    return [f"{new} of {len(here)} objects were new to the remote {remote.name!r}"]


def check(root: Path) -> list[str]:
    """Hash all that the cache has, and take out what is damaged; a line for each such object."""
    with _opened(root) as repo:
        made, cache = outputs(repo), _cache(repo)
    # Lists first: a damaged one names no files
    damaged = _taken_out(made, cache)
    return damaged + _taken_out(_with_files(made, cache), cache)


COMMANDS: dict[str, Callable[[Path], list[str]]] = {"pull": pull, "push": push, "check": check}


# ------------------------------------------------------------------------------- the parts
def outputs(repo: Repo) -> list[Object]:
    """What the stages of dvc.yaml have made and DVC's cache keeps, folders by their lists."""
    return [
        Object(out.hash_info.value, out.def_path, stage.addressing)
        for stage in repo.index.stages
        for out in stage.outs
        if out.use_cache and out.hash_info
    ]


def _cache(repo: Repo) -> Path:
    return Path(repo.cache.local.path)


def _with_files(made: Iterable[Object], cache: Path) -> list[Object]:
    """These outputs and, of the folders whose list the cache has, their files."""
    found = []
    for item in made:
        found.append(item)
        if item.oid.endswith(FOLDER) and within(cache, item.oid).is_file():
            found += files(item, within(cache, item.oid))
    return found


def _fetched(remote: Remote, items: Iterable[Object]) -> dict[str, str]:
    """Fetch what the cache lacks; gives what could not be had, and why."""
    oids = {item.oid: None for item in items if not within(remote.cache, item.oid).is_file()}
    reasons = zip(oids, _at_once(remote.fetch, list(oids)), strict=True)
    return {oid: why for oid, why in reasons if why is not None}


def _taken_out(items: Iterable[Object], cache: Path) -> list[str]:
    lines = []
    for item in items:
        content = within(cache, item.oid)
        if content.is_file() and md5(content) != item.oid.removesuffix(FOLDER):
            content.unlink()
            lines.append(f"the cache: {item.shown} was damaged and is taken out of it")
    return lines


def _at_once(work: Callable[[Item], Result], items: list[Item]) -> list[Result]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(work, items))


def _checkout(repo: Repo, made: Iterable[Object], lost: Iterable[Object]) -> None:
    """Put in place the outputs that the project lacks and the cache has in whole."""
    broken = [Path(item.path) for item in lost]
    targets = [
        item.path
        for item in made
        if not Path(repo.root_dir, item.path).exists()
        and not any(path.is_relative_to(item.path) for path in broken)
    ]
    if targets:
        repo.checkout(targets)


@contextmanager
def _opened(root: Path) -> Iterator[Repo]:
    """Raises `UserError` for what DVC refuses: no remote, a kind that is not installed."""
    try:
        with closing(Repo(str(root), _wait_for_lock=True)) as repo:
            yield repo
    except DvcException as error:
        raise UserError(f"{error}; see docs/remotes.md") from None


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.orchestration.remote", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("command", choices=COMMANDS)
    for line in COMMANDS[parser.parse_args(argv).command](Path.cwd()):
        print(line)


if __name__ == "__main__":
    run_command(main)
