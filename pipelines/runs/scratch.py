"""Scratch: work that is kept under a hash of everything it depends on.

Knows no stage and no model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock

from skd.settings import canonical


def key(*parts: Any) -> str:
    """The name of a scratch folder: a hash of everything that the work in it depends on."""
    return hashlib.sha256(canonical(list(parts)).encode()).hexdigest()[:24]


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """One process at a time makes what lies at `path`: stages may run side by side."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        yield


def fingerprint(folder: Path) -> str:
    """A hash of a folder's file names and contents."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(str(path.relative_to(folder)).encode())
        written = path.stat()
        digest.update(_digest(path, written.st_size, written.st_mtime_ns))
    return digest.hexdigest()


@cache
def _digest(path: Path, _size: int, _written: int) -> bytes:
    """Of the file as it was written then: many jobs start from one large model."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").digest()
