"""Whatever a model folder holds: the stage `base` takes it or says what is wrong.

Weights are read from safetensors alone; a pickle is never opened and no code of a folder runs.
"""

from __future__ import annotations

import json
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipelines.stages import base
from skd.models.procedural import train_tokenizer
from tests.safety.commands import Ended, ends_well, inputs
from tests.safety.junk import damaged, spoilt
from tests.tiny import build

FILES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
         "special_tokens_map.json", "model.safetensors")  # fmt: skip
JSON = [name for name in FILES if name.endswith(".json")]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the stage takes."""
    folder = tmp_path_factory.mktemp("model") / "good"
    tokenizer = train_tokenizer(["How many are two and one?", "They are three."], 300)
    size = len(tokenizer)
    build("llama", vocab_size=size, dtype=torch.float32, eos_token_id=tokenizer.eos_token_id,
          pad_token_id=tokenizer.pad_token_id).save_pretrained(folder)  # fmt: skip
    tokenizer.save_pretrained(folder)
    return folder


def project(factory: pytest.TempPathFactory, model: Path) -> Path:
    """A project whose teacher is the good model, and its student a copy of it."""
    root = factory.mktemp("models") / "project"
    shutil.copytree(model, root / "input" / "student")
    named = {"kind": "folder", "path": str(model)}
    params = {
        "experiment": {"tasks": ["own"]},
        "models": {"teacher": named, "student": {"kind": "folder", "path": "input/student"}},
        "evaluate": {"batch_size": 2},
        "runtime": {"plan": False, "device": "cpu", "workers": 1, "progress": False},
    }
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    return root


@pytest.fixture(autouse=True)
def untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stage times its machine, which takes seconds."""
    monkeypatch.setattr(base, "fixed_work", lambda: 1.0)


def check(root: Path) -> Ended:
    ended = ends_well(base.main, root)
    if ended.status:
        assert not (root / "models" / "base").exists()
    shutil.rmtree(root.parent)
    return ended


pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries' own, of what they come upon


def test_a_whole_folder_is_taken(model: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert check(project(tmp_path_factory, model)).status == 0


@inputs(0.06)
@given(data=st.data())
def test_any_bytes(data: Any, model: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    name = data.draw(st.sampled_from(FILES))
    root = project(tmp_path_factory, model)
    file = root / "input" / "student" / name
    file.write_bytes(data.draw(damaged(file.read_bytes())))
    check(root)


@inputs(0.06)
@given(data=st.data())
def test_any_settings(data: Any, model: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    name = data.draw(st.sampled_from(JSON))
    root = project(tmp_path_factory, model)
    file = root / "input" / "student" / name
    document = data.draw(spoilt(json.loads(file.read_text())))
    file.write_text(json.dumps(document, default=str), encoding="utf-8", errors="replace")
    check(root)


class Owned:
    """Unpickling it writes a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("owned"),)


CODE = "from pathlib import Path\nPath('owned').touch()\n"
CUSTOM = {"auto_map": {
    "AutoConfig": "custom.Config", "AutoModelForCausalLM": "custom.Model",
    "AutoTokenizer": ["custom.Tokenizer", None],
}}  # fmt: skip


def rewrite(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Owned()))


def with_code(folder: Path) -> None:
    (folder / "custom.py").write_text(CODE)
    rewrite(folder / "config.json", model_type="custom", **CUSTOM)


def tokenizer_with_code(folder: Path) -> None:
    (folder / "custom.py").write_text(CODE)
    rewrite(folder / "tokenizer_config.json", tokenizer_class="Tokenizer", **CUSTOM)


def header(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Rewrite what the weights' file says of itself."""
    file = folder / "model.safetensors"
    content = file.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    says = json.loads(content[8 : 8 + length])
    change(says)
    own = json.dumps(says).encode()
    file.write_bytes(struct.pack("<Q", len(own)) + own + content[8 + length :])


def first_weight(says: dict[str, Any]) -> str:
    return next(name for name in says if name != "__metadata__")


def template(text: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "chat_template.jinja").write_text(text)

    return write


def claimed_length(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(struct.pack("<Q", 2**62) + file.read_bytes()[8:])


WRONG: dict[str, tuple[Callable[[Path], None], str]] = {
    "pickled weights": (pickled, "safetensors"),
    "a model of its own code": (with_code, "the model cannot be loaded"),
    "a tokenizer of its own code": (tokenizer_with_code, "the model cannot be loaded"),
    "a config without a family": (
        lambda folder: (folder / "config.json").write_text("{}") and None,
        "model_type",
    ),
    "a config of texts": (
        lambda folder: rewrite(folder / "config.json", hidden_size="wide"),
        "the model cannot be loaded",
    ),
    "no heads": (
        lambda folder: rewrite(folder / "config.json", num_attention_heads=0),
        "the model cannot be loaded",
    ),
    "a layer that the weights lack": (
        lambda folder: rewrite(folder / "config.json", num_hidden_layers=2),
        "the weights lack 'model.layers.1",
    ),
    "weights of another shape": (
        lambda folder: rewrite(folder / "config.json", intermediate_size=48),
        "the model cannot be loaded",
    ),
    "weights cut off": (
        lambda folder: (folder / "model.safetensors").write_bytes(
            (folder / "model.safetensors").read_bytes()[:-100]
        ) and None,
        "the model cannot be loaded",
    ),
    "a header that is longer than the file": (claimed_length, "the model cannot be loaded"),
    "a header that lies of a place": (
        lambda folder: header(
            folder, lambda says: says[first_weight(says)].update(data_offsets=[0, 2**40])
        ),
        "the model cannot be loaded",
    ),
    "a header that lies of a shape": (
        lambda folder: header(
            folder, lambda says: says[first_weight(says)].update(shape=[2**31, 2**31])
        ),
        "the model cannot be loaded",
    ),
    "a header without a weight": (
        lambda folder: header(folder, lambda says: says.pop(first_weight(says)) and None),
        "",
    ),
    "a broken tokenizer": (
        lambda folder: (folder / "tokenizer.json").write_text('{"model": 1}') and None,
        "the model cannot be loaded",
    ),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), ""),
    "a template that is none": (template("{% for %}"), "TemplateSyntaxError"),
    "a template that reaches out": (
        template("{{ ''.__class__.__mro__[1].__subclasses__() }}"),
        "SecurityError",
    ),
    "a template without end": (
        template("{% for i in range(10**9) %}{% endfor %}"),
        "the model cannot be loaded",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_said(
    what: str, model: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    spoil, message = WRONG[what]
    root = project(tmp_path_factory, model)
    spoil(root / "input" / "student")
    ended = check(root)
    assert ended.status == 2
    assert message in ended.message
