"""What the stages left, as DVC's cache keeps it: objects named by the MD5 of their contents.

A folder is an object that lists its files. The layout of both is DVC's. Knows no remote and imports
nothing of DVC.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

FOLDER = ".dir"  # the end of an object's name that lists a folder's files


@dataclass(frozen=True)
class Object:
    """One content of the cache."""

    # MD5 of the contents; a folder's list has `.dir` behind it
    oid: str
    # The file or folder of the project that has it, and the stage that makes that
    path: str
    stage: str

    @property
    def shown(self) -> str:
        return f"{self.path} (stage {self.stage}, object {self.oid})"


def within(cache: Path, oid: str) -> Path:
    """Where a cache has the object of that name."""
    return cache / oid[:2] / oid[2:]


def files(listed: Object, content: Path) -> list[Object]:
    """The files of a folder, from its list."""
    entries = json.loads(content.read_text(encoding="utf-8"))
    return [
        Object(entry["md5"], f"{listed.path}/{entry['relpath']}", listed.stage) for entry in entries
    ]


def md5(path: Path) -> str:
    """Of a file's contents."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, partial(hashlib.md5, usedforsecurity=False)).hexdigest()
