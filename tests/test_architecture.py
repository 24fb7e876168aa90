"""The walls: who imports whom, and that every stage depends on the code and values it uses."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest
import yaml

from pipelines.closure import closure, code_lines
from pipelines.parameters import UNTRACKED, paths
from pipelines.stages.code import stages, write_code

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
        ("skd", {"pipelines", "prefect", "dvc", "tests", "benchmarks", "chaos"}),
        ("pipelines", {"tests", "benchmarks", "chaos"}),
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


def test_three_modules_import_prefect_and_two_use_dvcs_python_api() -> None:
    found = {"prefect": set(), "dvc": set()}
    for path in modules("pipelines"):
        for name in imports(path):
            if name.split(".")[0] in found:
                found[name.split(".")[0]].add(path.name)
    under_prefect = {"board.py", "flow.py", "publishing.py"}
    assert found == {"prefect": under_prefect, "dvc": {"graph.py", "remote.py"}}


def test_trackers_are_imported_in_their_own_process_alone() -> None:
    trackers = {"mlflow", "wandb", "dvclive", "torch.utils.tensorboard", "pipelines.trackers"}
    found = offenders(modules("skd") + modules("pipelines"), trackers)
    assert {line.split()[0] for line in found} == {"pipelines/trackers.py"}


def test_one_module_imports_the_computer_algebra() -> None:
    algebra = {"sympy", "math_verify", "latex2sympy2_extended"}
    found = offenders(modules("skd") + modules("pipelines"), algebra)
    assert {line.split()[0] for line in found} == {"skd/tasks/algebra.py"}


def test_one_module_imports_ray() -> None:
    found = offenders(modules("skd") + modules("pipelines"), {"ray"})
    assert {line.split()[0] for line in found} == {"pipelines/runs/cluster.py"}


@pytest.mark.parametrize(
    ("package", "module"),
    [("peft", "skd/models/adapters.py"), ("bitsandbytes", "skd/models/quantised.py")],
)
def test_what_few_runs_need_is_imported_by_one_module_in_its_functions(package, module) -> None:
    found = offenders(modules("skd") + modules("pipelines"), {package})
    assert {line.split()[0] for line in found} == {module}
    at_import = ast.parse((ROOT / module).read_text(encoding="utf-8")).body
    names = [n for n in at_import if isinstance(n, ast.Import | ast.ImportFrom)]
    assert not any(package in ast.dump(node) for node in names)


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


def test_the_committed_code_lists_are_current(tmp_path) -> None:
    write_code(tmp_path / "code")
    wanted = {path.name: path.read_text() for path in (tmp_path / "code").iterdir()}
    committed = {path.name: path.read_text() for path in (ROOT / "code").iterdir()}
    assert committed == wanted, "run `dvc repro code` and commit code/"


def test_every_stage_depends_on_its_own_code_list_and_on_no_source_file() -> None:
    assert set(STAGES) == {"code", *stages()}
    for name, definition in STAGES.items():
        if name != "code":
            assert f"code/{name}.txt" in definition["deps"], name
            assert not [dep for dep in definition["deps"] if dep.endswith(".py")], name


def package(root: Path, **modules: str) -> Path:
    (root / "skd").mkdir(parents=True)
    for name, text in {"__init__": "", **modules}.items():
        (root / "skd" / f"{name}.py").write_text(text)
    return root


def test_the_closure_follows_lazy_and_relative_packages(tmp_path) -> None:
    root = package(
        tmp_path,
        a="def f():\n    from skd import b\n",
        b="import skd.c\n",
        c="x = 1\n",
        d="x = 1\n",
    )
    assert closure("skd.a", root) == ["skd/a.py", "skd/b.py", "skd/c.py"]


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ('"""Doc."""\n\n# why\ndef f(x):\n    """Doc."""\n    return (x + 1)\n', True),
        ("def f(x): return x + 2\n", False),
        ("def f(y): return y + 1\n", False),
        ("def f(x): return None\n", False),
    ],
)
def test_a_hash_is_of_the_meaning_and_not_of_the_prose(tmp_path, other, same) -> None:
    first = package(tmp_path / "1", a="def f(x):\n    return x + 1\n")
    second = package(tmp_path / "2", a=other)
    assert (code_lines("skd.a", first) == code_lines("skd.a", second)) is same


def test_training_depends_on_no_report_no_comet_and_no_statistics() -> None:
    for stage in ("base", "sft", "distill"):
        files = (ROOT / "code" / f"{stage}.txt").read_text()
        for name in (
            "skd/report",
            "comet",
            "bleu",
            "statistics",
            "skd/decoding",
            "settings/report",
        ):
            assert name not in files, (stage, name)


def test_a_stage_reads_the_parameters_that_dvc_tracks() -> None:
    """The report alone reads the whole file: it names its hash."""
    for name in set(stages()) - {"report"}:
        kind = importlib.import_module(f"pipelines.stages.{name}").Parameters
        read = set(paths(kind).values()) - {UNTRACKED}
        tracked = {re.sub(r"\$\{item\.\w+\}", "{item}", p) for p in STAGES[name]["params"]}
        assert read == tracked, name


def test_params_of_a_stage_exist_and_runtime_is_nobodys() -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for name, definition in STAGES.items():
        for entry in definition.get("params", []):
            assert not entry.startswith(UNTRACKED), name
            assert entry.split(".")[0] in params, (name, entry)
