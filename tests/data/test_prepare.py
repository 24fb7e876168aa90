"""Split checks, cutting, the data card, and the folder that appears at once or not at all."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.stages import prepare as stage
from skd.data import cutting
from skd.data import prepare as folder
from skd.data.record import SPLITS, Record, normalised
from skd.data.settings import Columns, Data, Files, Procedural
from skd.errors import UserError
from skd.files import write_files
from skd.results.data import DataCard, Duplicates, Lengths
from skd.results.files import read_result

PARAMS = Path(__file__).parents[2] / "params.yaml"


def row(source: str, target: str = "t", origin: str = "here") -> Record:
    return Record(source, target, (target,), None, origin)


def own(root: Path, splits: dict[str, list[dict[str, Any]]], **settings: Any) -> Data:
    for split, rows in splits.items():
        text = "".join(json.dumps(values) + "\n" for values in rows)
        (root / f"{split}.jsonl").write_text(text)
    source = Files(
        kind="files",
        columns=Columns(source="q", target="a"),
        train="train.jsonl",
        validation="validation.jsonl" if "validation" in splits else None,
        test="test.jsonl" if "test" in splits else None,
    )
    return Data(task=settings.pop("task", "translation"), source=source, **settings)


def rows_of(root: Path, name: str, split: str) -> list[dict[str, Any]]:
    text = (root / "data" / name / f"{split}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def pairs(*texts: str) -> list[dict[str, str]]:
    return [{"q": text, "a": f"{text}!"} for text in texts]


# ------------------------------------------------------------------- overlaps
def test_an_overlap_names_both_rows_the_text_and_the_remedy(tmp_path: Path) -> None:
    data = own(
        tmp_path,
        {"train": pairs("a", "Some  Text"), "validation": pairs("b"), "test": pairs("some text")},
    )
    with pytest.raises(UserError) as caught:
        folder.prepare(data, "mt", tmp_path)
    assert re.search(
        r"data\.mt: train \(train\.jsonl, line 2\) repeats a source text of test "
        r"\(test\.jsonl, line 1\): 'Some Text'.*data\.mt\.duplicates: drop",
        str(caught.value),
    )
    assert not (tmp_path / "data").exists()


def test_dropping_takes_rows_from_train_and_validation_but_never_from_test(tmp_path: Path) -> None:
    data = own(
        tmp_path,
        {"train": pairs("a", "b", "c"), "validation": pairs("B", "d"), "test": pairs("C ", "D")}
        | {"validation": pairs("B", "d", "e")},
        duplicates="drop",
    )
    card = folder.prepare(data, "mt", tmp_path)
    assert [r["source"] for r in rows_of(tmp_path, "mt", "train")] == ["a"]
    assert [r["source"] for r in rows_of(tmp_path, "mt", "validation")] == ["B", "e"]
    assert [r["source"] for r in rows_of(tmp_path, "mt", "test")] == ["C", "D"]
    assert card.duplicates == Duplicates(across_splits=3, dropped=3, merged=0)


def test_a_split_left_empty_is_an_error(tmp_path: Path) -> None:
    data = own(
        tmp_path,
        {"train": pairs("a"), "validation": pairs("b"), "test": pairs("a")},
        duplicates="drop",
    )
    with pytest.raises(UserError, match=r"data\.mt: the train split is empty"):
        folder.prepare(data, "mt", tmp_path)


@pytest.mark.parametrize("empty", SPLITS)
def test_an_empty_file_is_an_error(empty: str, tmp_path: Path) -> None:
    splits = {split: pairs(split) for split in SPLITS} | {empty: []}
    with pytest.raises(UserError, match=f"the {empty} split is empty"):
        folder.prepare(own(tmp_path, splits), "mt", tmp_path)


short = st.lists(st.sampled_from([row(text) for text in ["a", "A", "b", "c ", "c", "d"]]))


@given(train=short, validation=short, test=short)
def test_dropping_always_gives_disjoint_splits_and_a_whole_test_split(
    train: list[Record], validation: list[Record], test: list[Record]
) -> None:
    splits = {"train": train, "validation": validation, "test": test}
    kept, dropped = folder.disjoint(splits, "x", "drop")
    keys = {split: {normalised(r.source) for r in rows} for split, rows in kept.items()}
    assert not keys["train"] & keys["validation"]
    assert not (keys["train"] | keys["validation"]) & keys["test"]
    assert kept["test"] == test
    assert sum(map(len, kept.values())) + dropped == len(train) + len(validation) + len(test)


# ------------------------------------------------------- merging, cutting, sizes
def test_equal_sources_are_united_for_evaluation_and_stay_apart_for_training() -> None:
    same = [row("A b", "one"), row("a  B", "two"), row("c", "three")]
    splits, merged = cutting.merge({split: list(same) for split in SPLITS})
    assert [r.target for r in splits["train"]] == ["one", "two", "three"]
    for split in ("validation", "test"):
        assert [r.references for r in splits[split]] == [("one", "two"), ("three",)]
        assert splits[split][0].target == "one"
    assert merged == 2


@settings(max_examples=60)
@given(
    texts=st.lists(st.sampled_from("abcdefghijkl"), min_size=1, max_size=40),
    size=st.integers(1, 4),
    seed=st.integers(0, 5),
)
def test_cutting_never_parts_one_content_and_repeats_itself(
    texts: list[str], size: int, seed: int
) -> None:
    data = Data(
        task="translation",
        source=Procedural(kind="procedural"),
        validation_size=size,
        test_size=size,
        seed=seed,
    )
    rows = [row(text, str(number)) for number, text in enumerate(texts)]
    if len(set(texts)) <= 2 * size:
        with pytest.raises(UserError, match=rf"data\.mt: the training data has {len(set(texts))}"):
            cutting.cut({"train": rows}, data, "mt")
        return
    splits = cutting.cut({"train": rows}, data, "mt")
    assert splits == cutting.cut({"train": rows}, data, "mt")
    contents = {split: {r.source for r in found} for split, found in splits.items()}
    assert len(contents["test"]) == len(contents["validation"]) == size
    assert sum(map(len, contents.values())) == len(set(texts))
    assert sorted(r.target for found in splits.values() for r in found) == sorted(
        r.target for r in rows
    )


def test_a_split_that_is_there_is_not_cut() -> None:
    data = Data(task="translation", source=Procedural(kind="procedural"))
    splits = {"train": [row(str(n)) for n in range(20)], "test": [row("x")]}
    done = cutting.cut(splits, data, "mt")
    assert done["test"] == splits["test"]
    assert (len(done["train"]), len(done["validation"])) == (18, 2)


def test_a_larger_size_keeps_every_row_of_a_smaller_one() -> None:
    rows = [row(str(n)) for n in range(50)]

    def chosen(size: int) -> list[Record]:
        data = Data(task="translation", source=Procedural(kind="procedural"), train_size=size)
        return cutting.limit({"train": rows}, data)["train"]

    assert len(chosen(10)) == 10
    assert set(chosen(10)) < set(chosen(20))
    assert chosen(20) == sorted(chosen(20), key=rows.index)
    assert chosen(10) != rows[:10]
    assert chosen(80) == rows


# ----------------------------------------------------------------------- files
def test_the_folder_holds_the_fixed_row_format_and_a_truthful_card(tmp_path: Path) -> None:
    splits = {"train": pairs("a b", "c"), "validation": pairs("d"), "test": pairs("e", "f g h")}
    data = own(tmp_path, splits, license="CC0-1.0", prompt="Say: {source}")
    card = folder.prepare(data, "mt", tmp_path)
    assert rows_of(tmp_path, "mt", "train")[0] == {
        "id": "train-0",
        "source": "a b",
        "target": "a b!",
    }
    assert rows_of(tmp_path, "mt", "test")[1] == {
        "id": "test-1",
        "source": "f g h",
        "target": "f g h!",
        "references": ["f g h!"],
        "references_complete": False,
        "valid_pattern": None,
    }
    home = tmp_path / "data" / "mt"
    assert sorted(path.name for path in home.iterdir()) == [
        "card.json",
        "test.jsonl",
        "train.jsonl",
        "validation.jsonl",
    ]
    assert read_result(home / "card.json", DataCard, "prepare@mt") == card
    assert (card.task, card.prompt, card.license) == ("translation", "Say: {source}", "CC0-1.0")
    assert card.splits["test"].rows == 2
    assert card.splits["test"].source_words == Lengths(p50=1, p90=3, max=3)
    assert card.splits["train"].vocabulary == 5  # a, b, b!, c, c!
    for split in SPLITS:
        content = (home / f"{split}.jsonl").read_bytes()
        assert card.splits[split].sha256 == hashlib.sha256(content).hexdigest()


def test_a_second_run_replaces_the_folder_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    splits = {split: pairs(split) for split in SPLITS}
    first = folder.prepare(own(tmp_path, splits), "mt", tmp_path)
    (tmp_path / "data" / "mt" / "stray").touch()
    second = folder.prepare(own(tmp_path, splits | {"train": pairs("new")}), "mt", tmp_path)
    assert first.sha256 != second.sha256
    assert rows_of(tmp_path, "mt", "train")[0]["source"] == "new"
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["mt"]
    assert not (tmp_path / "data" / "mt" / "stray").exists()


def test_a_failed_run_leaves_the_old_folder_whole(tmp_path: Path) -> None:
    splits = {split: pairs(split) for split in SPLITS}
    folder.prepare(own(tmp_path, splits), "mt", tmp_path)
    with pytest.raises(UserError):
        folder.prepare(own(tmp_path, splits | {"train": []}), "mt", tmp_path)
    assert rows_of(tmp_path, "mt", "train")[0]["source"] == "train"


def test_a_write_that_fails_midway_leaves_nothing_half_written(tmp_path: Path) -> None:
    with pytest.raises(UnicodeEncodeError):
        write_files(tmp_path / "data" / "mt", {"a.jsonl": "fine", "b.jsonl": "\ud800"})
    assert list((tmp_path / "data").iterdir()) == []


def test_a_prompt_without_its_slot_is_refused(tmp_path: Path) -> None:
    data = own(tmp_path, {split: pairs(split) for split in SPLITS}, prompt="Translate.")
    with pytest.raises(UserError, match=r"data\.mt\.prompt: 'Translate\.' lacks \{source\}"):
        folder.prepare(data, "mt", tmp_path)


# ----------------------------------------------------------------------- stage
def small_parameters(root: Path) -> None:
    raw = PARAMS.read_text(encoding="utf-8").replace("train_size: 20000", "train_size: 300")
    (root / "params.yaml").write_text(raw, encoding="utf-8")


def test_the_stage_writes_folder_and_metrics_the_same_way_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    small_parameters(tmp_path)
    stage.main(["translation"])
    assert "data/translation: train 300" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "metrics/prepare/translation.json").read_text())
    card = json.loads((tmp_path / "data/translation/card.json").read_text())
    assert metrics["took"]["seconds"] > 0
    assert metrics["card"] == card
    assert {"train", "validation", "test", "pretrain"} == set(card["splits"])
    stage.main(["translation"])
    assert json.loads((tmp_path / "data/translation/card.json").read_text()) == card


def test_an_unknown_task_lists_the_known_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small_parameters(tmp_path)
    known = "translation, summarization, arithmetic"
    with pytest.raises(UserError, match=f"'data.poetry' is missing; there are: {known}"):
        stage.main(["poetry"])
    assert not (tmp_path / "data").exists()


def test_help_teaches_the_sources(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        stage.main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert all(word in text for word in ("procedural", "files", "hub", "params.yaml", "card.json"))
