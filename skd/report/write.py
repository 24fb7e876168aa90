"""Files and folders that appear whole or not at all. Knows nothing of their content."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Replace the folder; nothing of an earlier run stays in it."""
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name, content in files.items():
        (partial / name).write_bytes(content)
    shutil.rmtree(path, ignore_errors=True)
    partial.replace(path)
