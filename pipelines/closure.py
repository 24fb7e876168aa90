"""The import closure of a module inside this repository, read from the syntax tree.

DVC does not see imports: a test compares every stage's `deps` with its closure, and
scratch folders are keyed by the code that fills them. Imports nothing that it looks at.
"""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("skd", "pipelines")


def closure(module: str, root: Path = ROOT) -> list[str]:
    """Paths, relative to the root, of the module and all it imports, lazily or not."""
    seen: set[Path] = set()
    todo = [path for path in (_file(module, root),) if path]
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        todo += [_parent(path)] if _parent(path).exists() else []
        todo += _imports(path, root)
    return sorted(str(path.relative_to(root)) for path in seen if path.read_bytes().strip())


@cache
def _imports(path: Path, root: Path) -> list[Path]:
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    files = [_file(name, root) for name in names if name.split(".")[0] in PACKAGES]
    return [path for path in files if path]


def _parent(path: Path) -> Path:
    return path.parent / "__init__.py"


def _file(module: str, root: Path) -> Path | None:
    stem = root.joinpath(*module.split("."))
    for path in (stem.with_suffix(".py"), stem / "__init__.py"):
        if path.exists():
            return path
    return None


if __name__ == "__main__":
    import sys

    print("\n".join(closure(sys.argv[1])))


@cache
def code_of(module: str) -> str:
    """A hash of the module's source and of all it imports: what keys of scratch folders hold."""
    digest = hashlib.sha256()
    for path in closure(module):
        digest.update((ROOT / path).read_bytes())
    return digest.hexdigest()
