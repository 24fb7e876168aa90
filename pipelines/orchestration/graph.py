"""DVC's graph as a list of stages: order, freshness, and what `meta:` says about running them.

With `remote.py` the only module that touches DVC's Python API, part of which is private;
`tests/pipelines/test_graph.py` holds the contract. It runs no stage and knows no Prefect.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networkx as nx
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.repo.reproduce import get_active_graph

from pipelines.parameters import PARAMETERS
from pipelines.yaml_text import read_yaml
from skd.errors import UserError

# It writes what tells whether the other stages' code changed, so it runs before they are planned
CODE_STAGE = "code"


@dataclass(frozen=True)
class Stage:
    name: str  # as `dvc repro NAME` takes it
    fresh: bool  # nothing to do, here and in every upstream stage
    upstream: tuple[str, ...]  # direct ones that are in the same plan
    timeout_seconds: float | None = None  # None: no limit
    retries: int = 0
    tags: tuple[str, ...] = ()
    command: str = ""  # as dvc.lock has it


def cache(root: Path) -> Path:
    """Where DVC keeps what stages made."""
    with closing(Repo(str(root), _wait_for_lock=True)) as repo:
        return Path(repo.cache.local_cache_dir)


def plan(
    root: Path,
    targets: Iterable[str] | None = None,
    force: bool = False,
    settled: Collection[str] = (),
) -> list[Stage]:
    """The stages that `dvc repro [targets]` would visit, every upstream before its downstream.

    Args:
        targets: a stage, one cell of a matrix (`distill@skd`) or a whole matrix (`distill`).
        force: no stage is fresh.
        settled: stages whose outputs are known to stand as they would make them. What depends on
            them is judged by itself, whether they are to run or not.

    Raises:
        UserError: `dvc.yaml`, a parameter that it uses, a target or a stage's `meta:` is wrong.
    """
    if not (root / "dvc.yaml").is_file():
        raise UserError(f"{root / 'dvc.yaml'}: no such file; run from the project's root")
    read_yaml(root / PARAMETERS)  # DVC's own words for what it cannot read name no remedy
    try:
        with closing(Repo(str(root), _wait_for_lock=True)) as repo:
            graph = get_active_graph(repo.index.graph)
            stale = set(repo.status())
            wanted = _wanted(repo, graph, list(targets or ()))
            return _stages(graph, _ordered(graph, wanted), stale, force, settled)
    except DvcException as error:
        raise UserError(f"dvc.yaml: {_message(error)}") from error


def _wanted(repo: Repo, graph: Any, targets: list[str]) -> set[Any]:
    """The targets and everything upstream of them; edges lead from a stage to what it needs."""
    if not targets:
        chosen = set(graph)
    else:
        chosen = {stage for target in targets for stage in repo.stage.collect(target)}
    upstream = {above for stage in chosen for above in nx.descendants(graph, stage)}
    return {stage for stage in chosen | upstream if stage.cmd}  # a .dvc file has no command


def _ordered(graph: Any, wanted: set[Any]) -> list[Any]:
    """Upstream first, otherwise as they stand in dvc.yaml."""
    place = {stage: number for number, stage in enumerate(graph)}
    downwards = graph.subgraph(wanted).reverse()
    return list(nx.lexicographical_topological_sort(downwards, key=place.__getitem__))


def _stages(
    graph: Any, order: list[Any], stale: set[str], force: bool, settled: Collection[str]
) -> list[Stage]:
    planned: dict[str, Stage] = {}
    for stage in order:
        names = (above.addressing for above in graph.successors(stage))
        upstream = tuple(sorted(name for name in names if name in planned))
        fresh = (
            not force
            and stage.addressing not in stale
            and all(planned[name].fresh or name in settled for name in upstream)
        )
        settings = _settings(stage.addressing, stage.meta or {})
        planned[stage.addressing] = Stage(
            stage.addressing, fresh, upstream, command=str(stage.cmd), **settings
        )
    return list(planned.values())


def _settings(name: str, meta: Mapping[str, Any]) -> dict[str, Any]:
    timeout, retries = meta.get("timeout_seconds"), meta.get("retries", 0)
    tags = meta.get("tags", [])
    checks = (
        ("timeout_seconds", timeout, timeout is None or (_number(timeout) and timeout > 0)),
        ("retries", retries, _number(retries) and retries == int(retries) >= 0),
        ("tags", tags, isinstance(tags, list) and all(isinstance(tag, str) for tag in tags)),
    )
    for key, value, right in checks:
        if not right:
            raise UserError(
                f"dvc.yaml: stage {name!r}: meta.{key} is {value!r}; expected: "
                "timeout_seconds > 0 or null, retries a whole number >= 0, tags a list of texts"
            )
    return {"timeout_seconds": timeout, "retries": int(retries), "tags": tuple(tags)}


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _message(error: BaseException) -> str:
    """DVC wraps the reason in several exceptions; the user needs all of them, once."""
    lines: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        if (text := str(cause).strip()) and not any(text in line for line in lines):
            lines.append(text)
        cause = cause.__cause__
    return "\n  ".join(lines)
