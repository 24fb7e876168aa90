"""Whatever params.yaml and a profile hold: a message that names the place, or a correct run."""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipelines import profile
from pipelines.stages import code, prepare
from tests.safety.commands import ends_well, inputs
from tests.safety.junk import TEXTS, damaged, spoilt

ROOT = Path(__file__).parents[2]
SMOKE = yaml.safe_load(profile.compose("smoke", ROOT / "profiles"))
SMOKE["methods"] = {name: SMOKE["methods"][name] for name in ("sft", "on_policy_kd", "skd")}
SMOKE["experiment"]["methods"] = ["sft", "skd"]
TEXT = yaml.safe_dump(SMOKE, sort_keys=False)
ROW = {"task": "arithmetic", "source": {"kind": "procedural"}, "train_size": 9, "test_size": 3}
DEEP = "[" * 500 + "]" * 500
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in pairwise("abcdefghi")
)


@pytest.fixture
def write_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the stage does behind its check is tested elsewhere, and takes seconds."""
    monkeypatch.setattr(code, "write_code", lambda: None)


def project(factory: pytest.TempPathFactory, params: bytes) -> Path:
    root = factory.mktemp("parameters") / "project"
    root.mkdir()
    (root / "params.yaml").write_bytes(params)
    return root


def as_yaml(document: Any) -> bytes:
    return yaml.safe_dump(document, sort_keys=False).encode()


@inputs(0.2)
@given(document=spoilt(SMOKE))
def test_any_values(
    document: Any, tmp_path_factory: pytest.TempPathFactory, write_code: None
) -> None:
    root = project(tmp_path_factory, as_yaml(document))
    ended = ends_well(code.main, root)
    if ended.status:
        assert "params.yaml" in ended.message
    shutil.rmtree(root.parent)


@inputs(0.1)
@given(content=damaged(TEXT.encode()))
def test_any_bytes(
    content: bytes, tmp_path_factory: pytest.TempPathFactory, write_code: None
) -> None:
    root = project(tmp_path_factory, content)
    ended = ends_well(code.main, root)
    if ended.status:
        assert "params.yaml" in ended.message
    shutil.rmtree(root.parent)


@inputs(0.06)
@given(name=TEXTS, row=spoilt(ROW))
def test_a_row_that_a_stage_is_asked_for_makes_no_folder_elsewhere(
    name: str, row: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The name is a row of params.yaml, whatever it looks like."""
    own = yaml.safe_dump({"data": {name: row}}, sort_keys=False).encode()
    root = project(tmp_path_factory, own)
    ended = ends_well(prepare.main, root, "--", name)
    assert ended.status == 0 or "params.yaml" in ended.message or "name" in ended.message
    shutil.rmtree(root.parent)


@inputs(0.04)
@given(name=TEXTS | st.just("own"), content=damaged(as_yaml({"report": SMOKE["report"]})))
def test_any_profile(name: str, content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = project(tmp_path_factory, TEXT.encode())
    (root / "profiles").mkdir()
    shutil.copy(ROOT / "profiles" / "embedded.yaml", root / "profiles")
    (root / "profiles" / "own.yaml").write_bytes(content)
    (root.parent / "outside.yaml").write_bytes(content)
    ends_well(profile.main, root, "--", name)
    shutil.rmtree(root.parent)


MEANT_BY_NOBODY = {
    "nested without end": (f"experiment: {DEEP}", "nested too deeply"),
    "blocks without end": ("".join("  " * n + "a:\n" for n in range(600)), "nested too deeply"),
    "aliases that grow": (BOMB, "more values"),
    "an alias of what it stands in": ("experiment: &a [*a]", "an alias of what it stands in"),
    "a key twice": ("experiment: {tasks: [a], tasks: [b]}", "'tasks' stands twice"),
    "a section twice": (f"{TEXT}\nreport: {{}}", "'report' stands twice"),
    "an object": ('a: !!python/object/apply:os.system ["touch owned"]', "python/object"),
    "a date": ("a: 2024-13-45", "a timestamp is no value"),
    "a tag that lies": ("a: !!int x", "not what its tag says"),
    "a tag that lies of nothing": ('a: !!bool "maybe"', "not what its tag says"),
    "two documents": ("a: 1\n---\na: 2", "not valid YAML"),
    "a number of many digits": (f"a: {'9' * 5000}", "not what its tag says"),
    "a key that is a list": ("? [a]\n: b", "a key must be a name"),
    "a control character": ('a: "\\e[2J"', "not to be seen"),
    "half of a UTF-16 pair": ('a: "\\ud800"', "not to be seen"),
    "a text that reorders": ('a: "\\u202e"', "not to be seen"),
    "nothing": ("", "params.yaml"),
    "too much": ("#" * 2_000_000, "too many"),
    "a token": (f"a: hf_{'a' * 34}", "a Hugging Face token"),
    "a token in a comment": (f"a: 1\n# hf_{'a' * 34}", "line 2: this looks like a Hugging Face"),
    "a key of a cloud": (f"a: AKIA{'A' * 16}", "an AWS key"),
    "a password": ("a: https://me:secret@example.org/x", "an address with a password"),
}  # fmt: skip


@pytest.mark.parametrize("what", MEANT_BY_NOBODY)
def test_yaml_that_nobody_means(
    what: str, tmp_path_factory: pytest.TempPathFactory, write_code: None
) -> None:
    text, message = MEANT_BY_NOBODY[what]
    ended = ends_well(code.main, project(tmp_path_factory, text.encode()))
    assert ended.status == 2
    assert message in ended.message
    assert "hf_" not in ended.message.replace("HF_TOKEN", "")
    assert "secret@" not in ended.message


def test_a_folder_in_the_files_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "project" / "params.yaml").mkdir(parents=True)
    assert "params.yaml: cannot be read" in ends_well(code.main, tmp_path / "project").message
