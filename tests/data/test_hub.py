"""The Hub path, offline: `datasets` reads a local folder of the same shape by the same call."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from skd.data import hub, sources
from skd.data.settings import Columns, Data, Hub
from skd.errors import UserError

COMMIT = "a" * 40


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    import huggingface_hub.constants

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def dataset(folder: Path, configs: dict[str, dict[str, list[dict[str, Any]]]]) -> str:
    """A folder as the Hub lays it out: Parquet per split, configurations in the card's head."""
    head = ["---", "configs:"]
    for config, splits in configs.items():
        head += [f"- config_name: {config}", "  data_files:"]
        for split, rows in splits.items():
            path = folder / config / f"{split}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pd.DataFrame(rows).to_parquet(path)
            head += [f"  - split: {split}", f"    path: {config}/{split}.parquet"]
    (folder / "README.md").write_text("\n".join([*head, "---", ""]), encoding="utf-8")
    return str(folder)


def data(task: str, **source: Any) -> Data:
    return Data(task=task, source=Hub(kind="hub", revision=COMMIT, **source))  # type: ignore[arg-type]


def flores(texts: dict[str, list[tuple[int, str]]]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    return {
        config: {
            split: [{"id": key, "text": f"{split} {text}", "topic": "x"} for key, text in rows]
            for split in ("dev", "devtest")
        }
        for config, rows in texts.items()
    }


def test_gsm8k_has_its_marks_stripped_and_a_validation_split_cut(tmp_path: Path) -> None:
    def rows(split: str, n: int) -> list[dict[str, str]]:
        return [
            {
                "question": f"{split} {i}?",
                "answer": f"{i}+1 = <<{i}+1={i + 1}>>{i + 1}\n#### {i + 1}",
            }
            for i in range(n)
        ]

    path = dataset(tmp_path / "g", {"main": {"train": rows("a", 30), "test": rows("b", 5)}})
    splits, _, _ = sources.load(data("arithmetic", preset="gsm8k", id=path), "sums", tmp_path)
    assert {split: len(found) for split, found in splits.items()} == {
        "train": 27,
        "validation": 3,
        "test": 5,
    }
    assert splits["test"][2].target == "2+1 = 3\n#### 3"
    assert splits["test"][2].references == ("2+1 = 3\n#### 3",)


def test_dialogsums_repeated_test_dialogues_become_references(tmp_path: Path) -> None:
    def row(number: int, summary: str) -> dict[str, str]:
        text = f"#Person1#: {number}?\n#Person2#: Yes."
        return {"id": f"x_{number}", "dialogue": text, "summary": summary, "topic": "t"}

    test = [row(number, f"summary {number}.{k}") for number in range(2) for k in range(3)]
    parts = {"train": [row(7, "a"), row(7, "b")], "validation": [row(8, "c")], "test": test}
    path = dataset(tmp_path / "d", {"default": parts})
    splits, merged, _ = sources.load(
        data("summarization", preset="dialogsum", id=path), "s", tmp_path
    )
    assert [row.references for row in splits["test"]] == [
        tuple(f"summary {number}.{k}" for k in range(3)) for number in range(2)
    ]
    assert [row.target for row in splits["train"]] == ["a", "b"]
    assert merged == 4


def test_flores_sides_are_joined_by_id_whatever_their_order(tmp_path: Path) -> None:
    sides = {
        "asm_Beng": [(3, "as3"), (1, "as1"), (2, "as2")],
        "eng_Latn": [(1, "en1"), (2, "en2"), (3, "en3")],
    }
    path = dataset(tmp_path / "f", flores(sides))
    splits, _, _ = sources.load(data("translation", preset="flores_plus", id=path), "mt", tmp_path)
    pairs = {(row.source, row.target) for row in splits["test"]}
    assert pairs == {(f"devtest as{k}", f"devtest en{k}") for k in (1, 2, 3)}
    assert len(splits["train"]) == 2
    assert len(splits["validation"]) == 1
    assert all(row.source.startswith("dev ") for row in splits["train"])


def test_a_flores_row_without_a_partner_is_named(tmp_path: Path) -> None:
    path = dataset(
        tmp_path / "f", flores({"asm_Beng": [(1, "a"), (2, "b")], "eng_Latn": [(1, "c")]})
    )
    with pytest.raises(UserError, match=r"id 2 is missing in eng_Latn"):
        sources.load(data("translation", preset="flores_plus", id=path), "mt", tmp_path)


def test_a_data_set_of_ones_own_needs_id_and_columns_only(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    rows = [{"in": f"i{n}", "out": [f"o{n}", f"p{n}"]} for n in range(10)]
    (tmp_path / "own" / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    own = data(
        "translation", id=str(tmp_path / "own"), columns=Columns(source="in", references=["out"])
    )
    splits, _, _ = sources.load(own, "mt", tmp_path)
    assert {split: len(rows) for split, rows in splits.items()} == {
        "train": 8,
        "validation": 1,
        "test": 1,
    }
    assert splits["test"][0].references == tuple(
        splits["test"][0].source.replace("i", letter) for letter in "op"
    )


def test_settings_beside_a_preset_win_over_it() -> None:
    chosen = hub.resolve(
        Hub(kind="hub", revision=COMMIT, preset="gsm8k", config="socratic", splits={"train": "x"}),
        "sums",
    )
    assert (chosen.id, chosen.configs, chosen.splits) == (
        "openai/gsm8k",
        ("socratic",),
        {"train": "x"},
    )


TEST_ONLY = [  # preset, its split, a row of its data set, our source and target
    (
        "svamp",
        "test",
        {"ID": "1", "Body": "Ann has 3 nuts.", "Question": "How many?", "Answer": "3.0"},
        ("Ann has 3 nuts. How many?", "#### 3.0"),
    ),
    (
        "asdiv",
        "validation",
        {
            "body": "7 red, 2 green.",
            "question": "In all?",
            "answer": "9 (apples)",
            "formula": "7+2",
        },
        ("7 red, 2 green. In all?", "#### 9 (apples)"),
    ),
    (
        "gsm_plus",
        "test",
        {"question": "How many?", "answer": "18", "perturbation_type": "reversing"},
        ("How many?", "#### 18"),
    ),
    (
        "math",
        "test",
        {"problem": "Half?", "solution": r"It is \boxed{\frac12}.", "answer": r"\frac{1}{2}"},
        ("Half?", "It is \\boxed{\\frac12}.\n#### \\frac{1}{2}"),
    ),
]


@pytest.mark.parametrize(("preset", "split", "row", "expected"), TEST_ONLY)
def test_a_set_that_is_only_tested_needs_no_other_split(
    preset: str, split: str, row: dict[str, Any], expected: tuple[str, str], tmp_path: Path
) -> None:
    path = dataset(tmp_path / preset, {"default": {split: [row]}})
    source = Hub(kind="hub", preset=preset, revision=COMMIT, id=path)  # type: ignore[arg-type]
    only = Data(task="arithmetic", source=source, tests="sums")
    splits, _, skipped = sources.load(only, "other", tmp_path)
    assert {name: [(r.source, r.target) for r in rows] for name, rows in splits.items()} == {
        "test": [expected]
    }
    assert skipped == 0


def test_gsm_plus_questions_without_an_answer_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = [{"question": f"{n}?", "answer": answer} for n, answer in enumerate(["4", "None", "5"])]
    path = dataset(tmp_path / "g", {"default": {"test": rows}})
    source = Hub(kind="hub", preset="gsm_plus", revision=COMMIT, id=path)
    only = Data(task="arithmetic", source=source, tests="sums")
    splits, _, skipped = sources.load(only, "other", tmp_path)
    assert [row.target for row in splits["test"]] == ["#### 4", "#### 5"]
    assert skipped == 1


def test_a_test_set_of_ones_own_is_read_from_the_split_that_it_names(tmp_path: Path) -> None:
    path = dataset(tmp_path / "g", {"default": {"test": [{"q": "a", "a": "1"}]}})

    def only(splits: dict[str, str] | None) -> Data:
        columns = Columns(source="q", answer="a")
        source = Hub(kind="hub", revision=COMMIT, id=path, columns=columns, splits=splits)
        return Data(task="arithmetic", source=source, tests="sums")

    for splits in (None, {"test": "test"}):
        assert len(sources.load(only(splits), "other", tmp_path).splits["test"]) == 1
    with pytest.raises(UserError, match=r"splits: name the split that serves as test"):
        sources.load(only({"train": "test"}), "other", tmp_path)


def test_a_preset_without_a_training_split_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"splits: name the split that serves as train"):
        sources.load(data("arithmetic", preset="asdiv"), "own", tmp_path)


ERRORS = [
    ({"preset": "gsm8k"}, "openai/gsm8k .main. at revision a+ cannot be loaded.*`kind: files`"),
    ({"preset": "flores_plus"}, r"flores_plus .*It is gated: accept its terms.*`kind: files`"),
    ({"preset": "dialogsum"}, r"knkarthick/dialogsum at revision .*Check id, config, revision"),
    ({}, r"data\.own\.source: a hub source needs a preset, or both id and columns"),
    ({"preset": "gsm8k", "splits": {"test": "test"}}, r"data\.own\.source\.splits: name the split"),
]


@pytest.mark.parametrize(("source", "message"), ERRORS)
def test_what_cannot_be_loaded_is_one_error_with_a_remedy(
    source: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        sources.load(data("arithmetic", **source), "own", tmp_path)


LOCAL_ERRORS = [
    ({"splits": {"train": "practice"}}, "no split 'practice'; there are: train"),
    ({"config": "other"}, r"cannot be loaded: ValueError: .*other"),
    ({"columns": Columns(source="nope", target="answer")}, "no column 'nope'; there are: question"),
]


@pytest.mark.parametrize(("source", "message"), LOCAL_ERRORS)
def test_a_wrong_split_config_or_column_lists_what_there_is(
    source: dict[str, Any], message: str, tmp_path: Path
) -> None:
    rows = [{"question": "a", "answer": "#### 1"}]
    path = dataset(tmp_path / "g", {"main": {"train": rows, "test": rows}})
    with pytest.raises(UserError, match=message):
        sources.load(data("arithmetic", preset="gsm8k", id=path, **source), "own", tmp_path)


def test_the_data_card_names_a_presets_id() -> None:
    for own, named in ((None, "openai/gsm8k"), ("a/b", "a/b")):
        source = sources.named(data("arithmetic", preset="gsm8k", id=own), "sums")
        assert isinstance(source, Hub)
        assert (source.kind, source.id, source.revision) == ("hub", named, COMMIT)
