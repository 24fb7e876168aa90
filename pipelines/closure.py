"""The import closure of a module inside this repository, with a hash of what each file means.

DVC does not see imports. The first stage writes every stage's closure to `code/`, where the stage
depends on it, and scratch folders are keyed by the code that fills them. A hash is of the syntax
tree without comments, docstrings and layout, so that prose makes nothing stale. It is the same on
every version of Python that the project runs on. Imports nothing that it looks at.
"""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("skd", "pipelines")
_WITH_DOCSTRING = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def closure(module: str, root: Path = ROOT) -> list[str]:
    """Paths, relative to the root, of the module and of all it imports, lazily or not.

    Files that hold nothing but prose are left out.
    """
    seen: set[Path] = set()
    waiting = [path for path in (_file(module, root),) if path]
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        package = path.parent / "__init__.py"
        waiting += [package] if package.exists() else []
        waiting += _imports(path, root)
    return sorted(str(path.relative_to(root)) for path in seen if _tree(path).body)


def code_lines(module: str, root: Path = ROOT) -> list[str]:
    """`hash  path` of each file of the closure: what `code/STAGE.txt` holds."""
    return [f"{meaning(root / path)}  {path}" for path in closure(module, root)]


@cache
def code_of(module: str) -> str:
    """One hash of the module and all it imports: what the keys of scratch folders hold."""
    return hashlib.sha256("\n".join(code_lines(module)).encode()).hexdigest()


@cache
def meaning(path: Path) -> str:
    """A hash of the file's syntax tree without comments, docstrings and layout."""
    return hashlib.sha256(_text(_tree(path)).encode()).hexdigest()[:16]


@cache
def _tree(path: Path) -> ast.Module:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, _WITH_DOCSTRING) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return tree


def _text(node: Any) -> str:
    """A syntax tree as text. Empty fields are left out: newer versions of Python add some."""
    if isinstance(node, ast.AST):
        fields = (
            f"{name}={_text(value)}"
            for name, value in ast.iter_fields(node)
            if value is not None and value != []
        )
        return f"{type(node).__name__}({','.join(fields)})"
    if isinstance(node, list):
        return f"[{','.join(map(_text, node))}]"
    return repr(node)


@cache
def _imports(path: Path, root: Path) -> list[Path]:
    names: list[str] = []
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    files = [_file(name, root) for name in names if name.split(".")[0] in PACKAGES]
    return [path for path in files if path]


def _file(module: str, root: Path) -> Path | None:
    stem = root.joinpath(*module.split("."))
    for path in (stem.with_suffix(".py"), stem / "__init__.py"):
        if path.exists():
            return path
    return None
