"""Reading files: every kind gives the same records, and every defect names its place."""

from __future__ import annotations

import contextlib
import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skd.data import sources, tables
from skd.data.columns import records
from skd.data.record import Record, normalised
from skd.data.settings import Columns, Data, Files
from skd.errors import UserError

ROWS = [
    {"q": "Wie?", "a": "So.", "n": 3},
    {"q": 'a "quoted", text\nof two lines', "a": "ja\u2028nein", "n": 4},
    {"q": "শুক্ৰবাৰ", "a": "Friday", "n": 5},
]


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(
            file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ","
        )
        writer.writeheader()
        writer.writerows(rows)


WRITERS: dict[str, Callable[[Path, list[dict[str, Any]]], None]] = {
    ".jsonl": write_jsonl,
    ".json": lambda path, rows: path.write_text(json.dumps(rows, indent=1)) and None,
    ".csv": write_csv,
    ".tsv": write_csv,
    ".parquet": lambda path, rows: pd.DataFrame(rows).to_parquet(path),
}


@pytest.mark.parametrize("suffix", WRITERS)
def test_every_file_kind_gives_the_same_records(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows{suffix}"
    WRITERS[suffix](path, ROWS)
    columns = Columns(source="q", target="a", answer="n")
    read = records(tables.read(path, path.name), columns, "arithmetic")
    assert [(row.source, row.target) for row in read] == [
        (row["q"], f"{row['a']}\n#### {row['n']}") for row in ROWS
    ]
    assert all(row.origin.startswith(f"{path.name}, ") for row in read)


def test_every_file_kind_is_exercised_here() -> None:
    assert set(WRITERS) == set(tables.READERS)


json_text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@settings(max_examples=50)
@given(rows=st.lists(st.fixed_dictionaries({"q": json_text, "a": json_text}), min_size=1))
def test_any_json_text_survives_both_json_forms(
    rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("json")
    write_jsonl(folder / "x.jsonl", rows)
    (folder / "x.json").write_text(json.dumps(rows, indent=2), encoding="utf-8")
    for name in ("x.jsonl", "x.json"):
        assert [values for _, values in tables.read(folder / name, name)] == rows


@settings(max_examples=100)
@given(content=st.binary(max_size=80), suffix=st.sampled_from(sorted(WRITERS)))
def test_arbitrary_bytes_give_rows_or_one_clear_error(
    content: bytes, suffix: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("bytes") / f"x{suffix}"
    path.write_bytes(content)
    with contextlib.suppress(UserError):  # any other exception fails the test
        tables.read(path, path.name)


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes("\ufeffq,a\n1,2\n".encode())
    assert tables.read(path, "x.csv") == [("x.csv, line 2", {"q": "1", "a": "2"})]


MALFORMED = [
    ("x.jsonl", b'{"q": "1"}\n{"q": \n', r"x\.jsonl, line 2: not valid JSON"),
    ("x.jsonl", b'{"q": "1"}\n\n["q"]\n', r"x\.jsonl, line 3: a row must be a JSON object"),
    ("x.jsonl", b'{"q": "1"}\n{"q": "\xff"}\n', r"x\.jsonl, line 2: not UTF-8"),
    ("x.json", b'{"rows": []}', r"x\.json, line 1: a \.json file must hold a list"),
    ("x.json", b'[\n{"q": "1"},\n{"q" "2"}\n]', r"x\.json, line 3: not valid JSON"),
    ("x.json", b'[\n{"q": "1"}\n{"q": "2"}\n]', r"x\.json, line 2: a comma or '\]' is missing"),
    ("x.json", b'[\n{"q": "1"},\n7\n]', r"x\.json, line 3: a row must be a JSON object"),
    ("x.json", b'[{"q": "1"}', r"x\.json, line 1: a comma or"),
    ("x.json", b'[{"q": "1"}] []', r"x\.json: text follows"),
    ("x.csv", b'q,a\n1,2\n1,2,3\n', r"x\.csv, line 3: 3 fields, but the header names 2"),
    ("x.csv", b'q,a\n"1\n1",2\n1\n', r"x\.csv, line 4: 1 fields"),
    ("x.csv", b'q,a\n1,2\n"1"x,2\n', r"x\.csv, line 3: malformed row .* inside it doubled"),
    ("x.tsv", b'q\ta\n"So," he said.\t2\n', r"x\.tsv, line 2: malformed row"),
    ("x.csv", b'q,a\n1,2\n"1,2\n', r"x\.csv, line \d: malformed row"),
    ("x.csv", b"q,q\n1,2\n", r"x\.csv, line 1: the header names a column twice"),
    ("x.csv", b"q,a\n\xe9,2\n", r"x\.csv, line 2: not UTF-8"),
    ("x.parquet", b"not parquet at all", r"x\.parquet: not a readable Parquet file"),
    ("x.txt", b"q", r"x\.txt: unknown file type '\.txt'; use one of \.jsonl"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "message"), MALFORMED)
def test_a_malformed_file_is_named_with_its_line(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        tables.read(tmp_path / name, name)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.csv: no such file"):
        tables.read(tmp_path / "gone.csv", "gone.csv")


# -------------------------------------------------------------------- columns
def one(values: dict[str, Any], task: str = "summarization", **columns: Any) -> Record:
    (record,) = records([("f.jsonl, line 7", values)], Columns(**columns), task)
    return record


BAD_ROWS = [
    ({"x": "s"}, {"source": "q", "target": "x"}, "no column 'q'; there are: x"),
    ({}, {"source": "q", "target": "x"}, "no column 'q'; there are: none"),
    ({"q": "s"}, {"source": "q", "target": "a"}, "no column 'a'; there are: q"),
    ({"q": " \n", "a": "t"}, {"source": "q", "target": "a"}, "column 'q' is empty"),
    ({"q": "s", "a": None}, {"source": "q", "target": "a"}, "column 'a' is empty"),
    ({"q": "s", "a": float("nan")}, {"source": "q", "target": "a"}, "column 'a' is empty"),
    ({"q": "s", "a": {"b": 1}}, {"source": "q", "target": "a"}, "column 'a' holds dict"),
    ({"q": "s", "a": True}, {"source": "q", "target": "a"}, "column 'a' holds bool"),
    ({"q": "s", "r": []}, {"source": "q", "references": ["r"]}, "column 'r' is an empty list"),
    ({"q": "s", "r": ["t", ""]}, {"source": "q", "references": ["r"]}, "column 'r' is empty"),
    ({"B": "s"}, {"source": "{B} {Q}", "target": "B"}, "no column 'Q'; there are: B"),
]


@pytest.mark.parametrize(("values", "columns", "message"), BAD_ROWS)
def test_a_bad_row_is_named_with_file_line_and_column(
    values: dict[str, Any], columns: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=f"f.jsonl, line 7: {message}"):
        one(values, **columns)


def test_a_template_joins_columns() -> None:
    record = one({"Body": "A.", "Question": "B?", "y": "z"}, source="{Body} {Question}", target="y")
    assert record.source == "A. B?"


def test_a_column_whose_name_holds_braces_is_a_column() -> None:
    assert one({"{x}": "text", "y": "z"}, source="{x}", target="y").source == "text"


def test_references_may_be_texts_or_lists_and_hold_the_target_once() -> None:
    record = one(
        {"q": "s", "a": "t", "r": ["u", "t"], "r2": "v"},
        source="q",
        target="a",
        references=["r", "r2"],
    )
    assert record.target == "t"
    assert record.references == ("t", "u", "v")


def test_without_a_target_column_the_first_reference_is_the_target() -> None:
    assert one({"q": "s", "r": ["u", "v"]}, source="q", references=["r"]).target == "u"


@pytest.mark.parametrize(
    ("values", "columns", "target"),
    [
        ({"a": "1+1 = <<1+1=2>>2", "n": 2}, {"target": "a", "answer": "n"}, "1+1 = 2\n#### 2"),
        ({"a": "two", "n": 51.0}, {"target": "a", "answer": "n"}, "two\n#### 51"),
        ({"a": "half", "n": 0.5}, {"target": "a", "answer": "n"}, "half\n#### 0.5"),
        ({"a": "x\n#### 2", "n": 2}, {"target": "a", "answer": "n"}, "x\n#### 2"),
        ({"n": "1,000"}, {"answer": "n"}, "#### 1,000"),
        ({"n": r"\frac{3}{4}"}, {"answer": "n"}, r"#### \frac{3}{4}"),
        ({"a": r"so \boxed{\frac{3}{4}}."}, {"target": "a"}, r"so \boxed{\frac{3}{4}}."),
        ({"a": r"\boxed{5}", "n": 5}, {"target": "a", "answer": "n"}, r"\boxed{5}"),
        (
            {"a": r"\boxed{\frac34}", "n": r"\frac{3}{4}"},
            {"target": "a", "answer": "n"},
            "\\boxed{\\frac34}\n#### \\frac{3}{4}",
        ),
        ({"n": "(1,\n 2)"}, {"answer": "n"}, "#### (1, 2)"),
    ],
)
def test_the_answer_column_ends_the_target(
    values: dict[str, Any], columns: dict[str, Any], target: str
) -> None:
    record = one(values | {"q": "s"}, "arithmetic", source="q", **columns)
    assert record.target == target
    assert record.references == (target,)


@pytest.mark.parametrize("target", ["two", "1 + 1 is\n####", "1 + 1 is\n#### \n"])
def test_an_arithmetic_target_without_an_answer_is_refused(target) -> None:
    """An empty one would be that of every output whose mark is followed by nothing."""
    with pytest.raises(UserError, match=r"line 7: the target has no final answer.*columns\.answer"):
        one({"q": "s", "a": target}, "arithmetic", source="q", target="a")


def test_two_different_answers_in_one_row_are_refused() -> None:
    with pytest.raises(UserError, match="line 7: the target already holds '####'"):
        one({"q": "s", "a": "x\n#### 3", "n": 2}, "arithmetic", source="q", target="a", answer="n")


def test_rows_that_hold_a_text_to_skip_are_left_out() -> None:
    rows = [(f"line {n}", {"q": "s", "n": n}) for n in ("2", " None ", "None?", "3")]
    named = Columns(source="q", answer="n", skip={"n": "None"})
    assert [row.target for row in records(rows, named, "arithmetic")] == [
        "#### 2",
        "#### None?",
        "#### 3",
    ]
    with pytest.raises(UserError, match=r"line 2: no column 'x'"):
        records(rows, Columns(source="q", answer="n", skip={"x": "y"}), "arithmetic")


def test_columns_without_any_output_are_refused() -> None:
    with pytest.raises(UserError, match="name a target column"):
        one({"q": "s"}, source="q")


def test_marks_that_are_not_the_calculators_stay_in_other_tasks() -> None:
    assert one({"q": "s", "a": "<<1+1=2>>2"}, source="q", target="a").target == "<<1+1=2>>2"


@given(st.text())
def test_normalising_twice_changes_nothing_more_than_spacing_and_case(text: str) -> None:
    assert normalised(f"  {text}\n") == normalised(text)
    assert normalised(text.replace(" ", "\t ")) == normalised(text)


def test_content_is_compared_without_case_spacing_and_unicode_form() -> None:
    assert normalised("Ａ  b\nC\u0301") == normalised("a B \u0107")


# ----------------------------------------------------------- whole file source
def test_files_are_read_relative_to_the_root(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    for split in ("train", "validation", "test"):
        write_jsonl(tmp_path / "own" / f"{split}.jsonl", [{"q": split, "a": "x"}])
    source = Files(
        kind="files",
        columns=Columns(source="q", target="a"),
        train="own/train.jsonl",
        validation="own/validation.jsonl",
        test="own/test.jsonl",
    )
    splits, merged, _ = sources.load(Data(task="translation", source=source), "mt", tmp_path)
    assert {split: [row.source for row in rows] for split, rows in splits.items()} == {
        split: [split] for split in ("train", "validation", "test")
    }
    assert merged == 0
    assert splits["train"][0].origin == "own/train.jsonl, line 1"
