"""The plan agrees with DVC; the private DVC calls behave as the plan needs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dvc.repo import Repo
from dvc.repo.reproduce import get_active_graph

from pipelines.orchestration import graph
from pipelines.orchestration.repro import python_first
from pipelines.sandbox import copy_project
from skd.errors import UserError
from tests.pipelines.conftest import Stages, chain, dvc, ran

# DVC's own use of pygtrie.
pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value will soon:DeprecationWarning")

Project = Callable[[Stages], Path]


def freshness(root: Path, **options: Any) -> dict[str, bool]:
    return {stage.name: stage.fresh for stage in graph.plan(root, **options)}


def test_contract_of_the_dvc_calls(project: Project) -> None:
    root = project(chain())
    with Repo(str(root), _wait_for_lock=True) as repo:
        active = get_active_graph(repo.index.graph)
        stages = {stage.addressing: stage for stage in active}
        assert set(stages) == {"seed", "paint@red", "paint@blue", "join"}
        # An edge leads from a stage to what it needs.
        assert list(active.successors(stages["paint@red"])) == [stages["seed"]]
        assert stages["seed"].meta == chain()["seed"]["meta"]
        assert stages["join"].meta is None
        assert set(repo.status()) == set(stages)
        collected = {stage.addressing for stage in repo.stage.collect("paint")}
        assert collected == {"paint@red", "paint@blue"}
    dvc("repro", "-q", root=root)
    with Repo(str(root)) as repo:
        assert repo.status() == {}


def test_contract_of_dvc_output_when_nothing_runs(project: Project) -> None:
    root = project(chain())
    dvc("repro", "-q", root=root)
    assert "didn't change, skipping" in dvc("repro", "--single-item", "seed", root=root)
    (root / "dvc.lock").unlink()
    assert "is cached - skipping run" in dvc("repro", "--single-item", "seed", root=root)


def test_upstream_comes_first_and_the_rest_stands_as_in_dvc_yaml(project: Project) -> None:
    stages = graph.plan(project(chain()))
    assert [stage.name for stage in stages] == ["seed", "paint@red", "paint@blue", "join"]
    assert [stage.upstream for stage in stages] == [
        (),
        ("seed",),
        ("seed",),
        ("paint@blue", "paint@red"),
    ]


def test_meta_sets_time_limit_retries_and_tags(project: Project) -> None:
    seed, *rest = graph.plan(project(chain()))
    assert (seed.timeout_seconds, seed.retries, seed.tags) == (60, 2, ("cheap",))
    assert {(s.timeout_seconds, s.retries, s.tags) for s in rest} == {(None, 0, ())}


def test_staleness_spreads_downstream_and_only_there(project: Project) -> None:
    root = project(chain())
    assert set(freshness(root).values()) == {False}
    dvc("repro", "-q", root=root)
    assert set(freshness(root).values()) == {True}
    (root / "red.txt").write_text("another\n")
    expected = {"seed": True, "paint@red": False, "paint@blue": True, "join": False}
    assert freshness(root) == expected
    dvc("checkout", "-q", "--force", root=root)
    (root / "params.yaml").write_text("colours: [red, blue]\ntext: changed\n")
    assert set(freshness(root).values()) == {False}


def test_planning_runs_nothing(project: Project) -> None:
    root = project(chain())
    graph.plan(root)
    assert ran(root) == []


def test_force_leaves_nothing_fresh(project: Project) -> None:
    root = project(chain())
    dvc("repro", "-q", root=root)
    assert set(freshness(root, force=True).values()) == {False}


@pytest.mark.parametrize(
    ("target", "names"),
    [
        ("seed", ["seed"]),
        ("paint@blue", ["seed", "paint@blue"]),
        ("paint", ["seed", "paint@red", "paint@blue"]),
        ("join", ["seed", "paint@red", "paint@blue", "join"]),
    ],
)
def test_a_target_brings_what_it_needs(project: Project, target: str, names: list[str]) -> None:
    assert [stage.name for stage in graph.plan(project(chain()), [target])] == names


def test_a_frozen_stage_does_not_bring_its_upstream(project: Project) -> None:
    stages = chain()
    stages["join"]["frozen"] = True
    assert [stage.name for stage in graph.plan(project(stages), ["join"])] == ["join"]


def test_outside_of_a_project_the_remedy_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run from the project's root"):
        graph.plan(tmp_path)


def test_an_unknown_target_is_named(project: Project) -> None:
    with pytest.raises(UserError, match="nowhere"):
        graph.plan(project(chain()), ["nowhere"])


def test_a_missing_parameter_is_named(project: Project) -> None:
    root = project(chain())
    (root / "params.yaml").write_text("colours: [red, blue]\n")
    with pytest.raises(UserError, match="text"):
        graph.plan(root)


@pytest.mark.parametrize("file", ["params.yaml", "dvc.yaml"])
def test_broken_yaml_is_named(project: Project, file: str) -> None:
    root = project(chain())
    (root / file).write_text("a: [1\n")
    with pytest.raises(UserError, match=file):
        graph.plan(root)


@pytest.mark.parametrize(
    "meta",
    [
        {"timeout_seconds": "long"},
        {"timeout_seconds": 0},
        {"retries": -1},
        {"retries": 1.5},
        {"retries": True},
        {"tags": "one"},
    ],
)
def test_wrong_meta_names_stage_and_key(project: Project, meta: dict[str, Any]) -> None:
    stages = chain()
    stages["join"]["meta"] = meta
    with pytest.raises(UserError, match=rf"'join'.*meta\.{next(iter(meta))}"):
        graph.plan(project(stages))


# --------------------------------------------------------- this project's graph, after an edit
@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this project in which DVC holds every stage for done, though none ran."""
    root = tmp_path_factory.mktemp("done") / "project"
    copy_project(root, "smoke")
    write_down_the_code(root)
    with Repo(str(root)) as repo:
        outs = [Path(out.fs_path) for out in repo.index.outs]
    for out in outs:
        file = out if out.suffix else out / "made"
        if not out.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{out}\n")
    dvc("commit", "-q", "--force", root=root)
    return root


@pytest.fixture
def done(copy: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same as the working directory: DVC names stages from there."""
    monkeypatch.chdir(copy)
    return copy


def write_down_the_code(root: Path) -> None:
    """As the flow does before it plans."""
    command = [sys.executable, "-m", "dvc", "repro", "-q", "--single-item", "code"]
    subprocess.run(command, cwd=root, env=python_first(), check=True)


def plan_after(root: Path, module: str, text: str) -> list[graph.Stage]:
    """The plan with the text added to the module, which then gets its own text back."""
    path = root / module
    before = path.read_text()
    try:
        path.write_text(before + text)
        write_down_the_code(root)
        return graph.plan(root)
    finally:
        path.write_text(before)


def test_a_changed_comment_makes_no_stage_stale(done: Path) -> None:
    assert all(stage.fresh for stage in plan_after(done, "skd/errors.py", "\n# Why.\n"))


@pytest.mark.parametrize(
    "module", ["skd/metrics/comet.py", "skd/training/loop.py", "pipelines/stages/report.py"]
)
def test_a_changed_module_makes_exactly_the_stages_stale_that_run_it(
    done: Path, module: str
) -> None:
    run_it = {path.stem for path in (done / "code").glob("*.txt") if module in path.read_text()}
    planned = plan_after(done, module, "\nADDED = 1\n")
    expected: set[str] = set()
    for stage in planned:
        if stage.name.split("@")[0] in run_it or expected.intersection(stage.upstream):
            expected.add(stage.name)
    assert {stage.name for stage in planned if not stage.fresh} == expected
    assert 0 < len(expected) < len(planned)
