"""The walls: who imports whom, and that every stage's `deps` list the code it runs."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import yaml

from pipelines.closure import closure

ROOT = Path(__file__).resolve().parent.parent
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def modules(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def offenders(paths: list[Path], forbidden: set[str]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in paths
        for name in imports(path)
        if any(name == f or name.startswith(f"{f}.") for f in forbidden)
    ]


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("skd", {"pipelines", "prefect", "dvc", "tests", "benchmarks"}),
        ("pipelines", {"tests", "benchmarks"}),
        ("skd/tasks", {"torch", "transformers", "skd.models", "skd.engine.sampling"}),
        ("skd/report", {"torch", "transformers", "skd.models", "skd.training.loop"}),
        ("skd/data", {"torch", "transformers", "skd.models", "skd.training.loop"}),
    ],
)
def test_folders_keep_out_what_they_refuse_to_know(folder, forbidden) -> None:
    assert offenders(modules(folder), forbidden) == []


@pytest.mark.parametrize("room", ["engine", "decoding", "training"])
def test_the_engine_and_the_training_see_ids_only(room) -> None:
    text = {"skd.tasks", "skd.data", "skd.metrics", "skd.report", "skd.models"}
    assert offenders(modules(f"skd/{room}"), text) == []


@pytest.mark.parametrize(
    "name",
    [
        "engine/sequences",
        "engine/logits",
        "engine/seeding",
        "training/divergences",
        "errors",
        "settings",
    ],
)
def test_leaves_import_nothing_of_ours(name) -> None:
    assert offenders([ROOT / "skd" / f"{name}.py"], {"skd"}) == []


def test_one_module_imports_prefect_and_one_uses_dvcs_python_api() -> None:
    found = {"prefect": set(), "dvc": set()}
    for path in modules("pipelines"):
        for name in imports(path):
            if name.split(".")[0] in found:
                found[name.split(".")[0]].add(path.name)
    assert found == {"prefect": {"flow.py"}, "dvc": {"graph.py"}}


def test_one_module_imports_the_computer_algebra() -> None:
    algebra = {"sympy", "math_verify", "latex2sympy2_extended"}
    found = offenders(modules("skd") + modules("pipelines"), algebra)
    assert {line.split()[0] for line in found} == {"skd/tasks/algebra.py"}


def test_no_pickle_and_no_eval() -> None:
    for path in modules("skd") + modules("pipelines"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert not {"pickle", "cloudpickle", "dill", "joblib"} & imports(path), path
        calls = {
            node.func.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert not calls & {"eval", "exec"}, path


def test_every_module_says_what_it_is() -> None:
    for path in modules("skd") + modules("pipelines"):
        if path.read_text(encoding="utf-8").strip():
            assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_all_the_code_it_imports_and_no_more(stage) -> None:
    definition = STAGES[stage]
    module = definition["cmd"].split()[2]
    listed = {dep for dep in definition["deps"] if dep.endswith(".py")}
    assert listed == set(closure(module)), f"python -m pipelines.closure {module} prints the list"


def test_the_closure_follows_lazy_and_relative_packages(tmp_path) -> None:
    package = tmp_path / "skd"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "a.py").write_text("def f():\n    from skd import b\n")
    (package / "b.py").write_text("import skd.c\n")
    (package / "c.py").write_text("x = 1\n")
    (package / "d.py").write_text("x = 1\n")
    assert closure("skd.a", tmp_path) == ["skd/a.py", "skd/b.py", "skd/c.py"]


def test_params_of_a_stage_exist_and_runtime_is_nobodys() -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for name, definition in STAGES.items():
        for entry in definition["params"]:
            assert not entry.startswith("runtime"), name
            assert entry.split(".")[0] in params, (name, entry)
