"""A folder with a hash of each of its files beside them, so that damage is known before it is used.

A file that was cut off or changed by a fault of the machine can look like a good one. Refuses to
know what is in the files; imports nothing heavy.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from skd.files import write_json

SEAL = "seal.json"


def seal(folder: Path, coming: Mapping[str, str] = {}) -> None:
    """Write down what the folder's files are.

    coming: name -> text of a file that is written afterwards, as the sign that all is there.
    """
    found = {name: _digest(folder / name) for name in _names(folder)}
    texts = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in coming.items()}
    write_json(folder / SEAL, found | texts)


def damaged(folder: Path) -> str | None:
    """The first file that is missing or not what was sealed; None: the folder is whole.

    Files that came later are none of the seal's.
    """
    try:
        sealed: dict[str, str] = json.loads((folder / SEAL).read_bytes())
        for name, digest in sealed.items():
            if not (folder / name).is_file() or _digest(folder / name) != digest:
                return name
    except (OSError, ValueError, AttributeError):
        return SEAL
    return None


def _names(folder: Path) -> list[str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return sorted(str(path.relative_to(folder)) for path in files if path.name != SEAL)


def _digest(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
