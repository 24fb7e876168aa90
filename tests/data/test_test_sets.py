"""Sets that are only tested: what is read, what must not have been trained on, what is written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.schema import parse
from pipelines.stages import prepare, prepare_tests
from skd.data.settings import Data
from skd.errors import UserError
from skd.results.data import DataCard, Duplicates, PrepareTestsResult
from skd.results.files import read_result

ROOT = Path(__file__).parents[2]
Rows = dict[str, Data]


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def questions(*texts: str) -> list[dict[str, Any]]:
    return [{"q": text, "a": number} for number, text in enumerate(texts)]


@pytest.fixture
def data(tmp_path: Path) -> Rows:
    """The task `arithmetic` from a file, prepared, and the set `other` beside it."""
    write(tmp_path / "train.jsonl", questions(*(f"Train {n}?" for n in range(30))))
    write(tmp_path / "test.jsonl", questions("A test?"))
    write(tmp_path / "other.jsonl", questions("Else 1?", "Else 2?", "Else 2?", "A test?"))
    columns = {"source": "q", "answer": "a"}
    raw = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    raw["experiment"] |= {
        "tasks": ["arithmetic"],
        "sweeps": [],
        "fairness": [],
        "test_sets": ["other"],
    }
    raw["data"] = {
        "arithmetic": {
            "task": "arithmetic",
            "prompt": "Solve. {source}",
            "source": {
                "kind": "files",
                "train": "train.jsonl",
                "test": "test.jsonl",
                "columns": columns,
            },
        },
        "other": {
            "task": "arithmetic",
            "tests": "arithmetic",
            "source": {"kind": "files", "test": "other.jsonl", "columns": columns},
        },
    }
    data = parse(raw).data
    prepare.prepare(data["arithmetic"], "arithmetic", tmp_path)
    return data


def rows(root: Path) -> list[dict[str, Any]]:
    text = (root / "test_sets" / "other" / "test.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def with_row(data: Rows, **changes: Any) -> Rows:
    return {**data, "other": replace(data["other"], **changes)}


def prepared(data: Rows, root: Path, names: tuple[str, ...] = ("other",)) -> dict[str, DataCard]:
    return prepare_tests.prepare_tests(data, names, root).test_sets


def test_a_set_is_written_apart_from_what_trains(data: Rows, tmp_path: Path) -> None:
    cards = prepared(data, tmp_path)
    assert [row["source"] for row in rows(tmp_path)] == ["Else 1?", "Else 2?", "A test?"]
    assert sorted(path.name for path in (tmp_path / "test_sets" / "other").iterdir()) == [
        "card.json",
        "test.jsonl",
    ]
    assert not (tmp_path / "data" / "other").exists()
    assert cards["other"].tests == "arithmetic"
    assert cards["other"].prompt == "Solve. {source}"
    assert cards["other"].splits["test"].rows == 3
    assert cards["other"].duplicates == Duplicates(across_splits=0, dropped=0, merged=1)
    path = tmp_path / "metrics" / "prepare_tests.json"
    assert read_result(path, PrepareTestsResult, "prepare_tests").test_sets == cards
    assert json.loads((tmp_path / "test_sets" / "sets.json").read_text()) == {"other": "arithmetic"}


def test_without_sets_the_folder_is_there_and_a_former_set_is_not(
    data: Rows, tmp_path: Path
) -> None:
    prepared(data, tmp_path)
    assert prepared(data, tmp_path, ()) == {}
    assert [path.name for path in (tmp_path / "test_sets").iterdir()] == ["sets.json"]


def test_its_own_prompt_wins_and_must_have_a_place_for_the_source(
    data: Rows, tmp_path: Path
) -> None:
    changed = with_row(data, prompt="Else: {source}")
    assert prepared(changed, tmp_path)["other"].prompt == "Else: {source}"
    with pytest.raises(UserError, match=r"data\.other\.prompt: 'Else' lacks \{source\}"):
        prepared(with_row(data, prompt="Else"), tmp_path)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_row_that_was_trained_on_is_named_or_dropped_and_counted(
    data: Rows, tmp_path: Path, split: str
) -> None:
    seen = (tmp_path / "data" / "arithmetic" / f"{split}.jsonl").read_text().splitlines()[0]
    leak = json.loads(seen)["source"]
    write(tmp_path / "other.jsonl", questions("Else?", f"  {leak.upper()}"))
    with pytest.raises(UserError) as caught:
        prepared(data, tmp_path)
    message = str(caught.value)
    assert f"other.jsonl, line 2 repeats a source text of the arithmetic {split} split" in message
    assert "1 of 2 rows" in message
    assert "data.other.duplicates: drop" in message
    card = prepared(with_row(data, duplicates="drop"), tmp_path)["other"]
    assert card.duplicates == Duplicates(across_splits=1, dropped=1, merged=0)
    assert [row["source"] for row in rows(tmp_path)] == ["Else?"]


def test_a_set_of_nothing_but_known_rows_is_empty(data: Rows, tmp_path: Path) -> None:
    write(tmp_path / "other.jsonl", questions("Train 1?"))
    with pytest.raises(UserError, match=r"data\.other: the test split is empty"):
        prepared(with_row(data, duplicates="drop"), tmp_path)


def test_its_size_is_limited(data: Rows, tmp_path: Path) -> None:
    prepared(with_row(data, test_size=2), tmp_path)
    assert len(rows(tmp_path)) == 2


def test_the_tasks_own_data_must_be_there(data: Rows, tmp_path: Path) -> None:
    (tmp_path / "data" / "arithmetic" / "train.jsonl").unlink()
    with pytest.raises(UserError, match=r"train\.jsonl is missing; run `dvc repro`"):
        prepared(data, tmp_path)
