"""What goes to the Hub, what is refused, and that nothing goes unasked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from unittest.mock import create_autospec

import pytest
import torch
from huggingface_hub import HfApi, ModelCard
from requests import ConnectionError as NoConnection

from pipelines import push as pushing
from pipelines.push import Upload, best_folder, check, main, push
from pipelines.runs.training import save_model
from skd.errors import UserError
from skd.models.loading import load_model, load_tokenizer
from skd.models.procedural import train_tokenizer
from skd.report.sections.cards import for_the_hub
from tests.conftest import ROOT
from tests.folders import marian_tokenizer, nllb_tokenizer, put, refer
from tests.tiny import build

NAME = "someone/little-translator"
CARD = """---
library_name: transformers
license: apache-2.0
---

# translation, `skd`

## Load

```python
folder = "models/students/skd/translation/20"  # the last part is the seed
```

Fetch the folder with `dvc pull models/students/skd/translation` or make it.
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """models/best/translation, and no token."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    folder = tmp_path / "models" / "best" / "translation"
    tokenizer = train_tokenizer(["one two 3"] * 20, 280)
    save_model(build(vocab_size=len(tokenizer), dtype=torch.float32), tokenizer, folder)
    (folder / "README.md").write_text(CARD)
    return folder


@pytest.fixture
def api() -> HfApi:
    """The Hub's client by its own signatures, which calls nobody."""
    api = create_autospec(HfApi, instance=True)
    api.model_info.return_value.private = True
    api.create_commit.return_value.commit_url = "https://hub/commit"
    return api


def upload(folder: Path, **changes: object) -> Upload:
    return Upload(**{"name": NAME, "folder": folder, "card": CARD, **changes})  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")
@pytest.mark.parametrize(
    ("family", "made"), [("marian", marian_tokenizer), ("m2m100", nllb_tokenizer)]
)
def test_an_encoder_decoder_goes_with_all_files_of_its_tokenizer(family, made, folder) -> None:
    there = put(folder.parent / "made", family, made(folder.parent))
    if family == "m2m100":
        there = refer(folder.parent / "there", there)
    shutil.rmtree(folder)
    save_model(load_model(there), load_tokenizer(there), folder)
    (folder / "README.md").write_text(CARD)
    check(upload(folder))
    again = load_tokenizer(folder)
    assert again("one two").input_ids == load_tokenizer(there)("one two").input_ids


def test_a_dry_run_shows_files_sizes_and_card_and_calls_nobody(folder, capsys, monkeypatch) -> None:
    monkeypatch.setattr(pushing, "HfApi", None)
    main([NAME, "--dry-run"])
    said = capsys.readouterr().out
    for path in folder.iterdir():
        size = path.stat().st_size
        assert path.name == "README.md" or f"{size:>15,}  {path.name}\n" in said
    assert f'folder = "{NAME}"\n' in said
    assert f"to {NAME}, private\ndry run: nothing was uploaded\n" in said


def test_the_token_is_taken_from_the_environment_alone(folder, monkeypatch, capsys, api) -> None:
    tokens: list[str] = []
    monkeypatch.setattr(pushing, "HfApi", lambda token: tokens.append(token) or api)
    with pytest.raises(UserError, match="set HF_TOKEN"):
        main([NAME])
    assert not tokens
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    main([NAME])
    said = capsys.readouterr()
    assert tokens == ["hf_secret"]
    assert "hf_secret" not in said.out + said.err
    assert said.out.endswith("https://hub/commit\n")


def test_all_files_go_in_one_commit_with_the_card_for_the_hub(folder, api) -> None:
    push(upload(folder, card="# for the Hub"), api)
    api.create_repo.assert_called_once_with(NAME, private=True, exist_ok=True)
    (name, operations), _ = api.create_commit.call_args
    assert name == NAME
    content = {o.path_in_repo: o.path_or_fileobj for o in operations}
    assert set(content) == {path.name for path in folder.iterdir()}
    assert content.pop("README.md") == b"# for the Hub"
    assert all(path == str(folder / name) for name, path in content.items())


def test_what_is_public_already_is_not_written_to_unasked(folder, api) -> None:
    api.model_info.return_value.private = False
    with pytest.raises(UserError, match="public already"):
        push(upload(folder), api)
    api.create_commit.assert_not_called()
    push(upload(folder, public=True), api)
    api.create_commit.assert_called_once()


def test_the_hubs_refusal_is_one_line(folder, api) -> None:
    api.create_repo.side_effect = NoConnection("no route\nto the Hub")
    with pytest.raises(UserError, match=r"the Hub does not take someone/little-translator: no rou"):
        push(upload(folder), api)


def cut_off(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])


def name_a_shard(folder: Path) -> None:
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def name_a_place(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"_name_or_path": f"{Path.cwd()}/models"}))


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (cut_off, "model.safetensors cannot be read"),
        (name_a_shard, "model-00001-of-00002.safetensors cannot be read"),
        (name_a_place, "config.json names a folder of this machine"),
        (lambda f: (f / "config.json").unlink(), "config.json is missing"),
        (lambda f: (f / "README.md").unlink(), "README.md is missing"),
        (lambda f: (f / "tokenizer_config.json").unlink(), "tokenizer_config.json is missing"),
        (lambda f: (f / "optimizer.pt").write_text(""), "optimizer.pt is no file of a student"),
    ],
)
def test_a_folder_that_is_no_whole_student_is_refused(folder, damage, complaint) -> None:
    check(upload(folder))
    damage(folder)
    with pytest.raises(UserError, match=complaint):
        check(upload(folder))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"name": "translator"}, "must be owner/name"),
        ({"name": "someone/a b"}, "NAME: "),
        ({"card": "---\nlicense: [\n---\n"}, "front matter cannot be read"),
        ({"card": "# no front matter", "public": True}, "states no licence"),
        ({"card": "---\nlicense: unknown\n---\n", "public": True}, "states no licence"),
    ],
)
def test_a_wrong_name_or_card_is_refused(folder, changes, complaint) -> None:
    with pytest.raises(UserError, match=complaint):
        check(upload(folder, **changes))


def test_the_only_student_is_taken_and_one_of_several_is_asked_for(folder, tmp_path) -> None:
    assert best_folder(None).resolve() == folder
    other = tmp_path / "models" / "best" / "summarization"
    other.mkdir()
    (other / "config.json").write_text("{}")
    assert best_folder("translation").resolve() == folder
    for task in (None, "typo"):
        with pytest.raises(UserError, match="summarization, translation"):
            best_folder(task)
    with pytest.raises(UserError, match="holds no student"):
        best_folder(None, tmp_path / "nowhere")


@pytest.mark.parametrize(
    "path", sorted((ROOT / "reports" / "cards").glob("*.md")), ids=lambda path: path.stem
)
def test_a_card_for_the_hub_names_nothing_of_this_repository_alone(path) -> None:
    card = for_the_hub(path.read_text(encoding="utf-8"), NAME)
    assert f'folder = "{NAME}"\n' in card
    assert not [word for word in ("models/students", "../", "`dvc ") if word in card]
    assert ModelCard(card).data.to_dict() == ModelCard(path.read_text()).data.to_dict()
