"""Whatever a data file holds: `prepare` makes whole splits, or says which row is wrong."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipelines.stages import prepare, prepare_tests
from tests.safety.commands import INPUTS, Ended, ends_well, inputs
from tests.safety.junk import ANYTHING, damaged, spoilt

Rows = list[dict[str, Any]]
ROWS: Rows = [{"q": f"How many are {n} and one?", "a": f"They are {n + 1}."} for n in range(12)]


def as_jsonl(rows: Any) -> bytes:
    return "".join(json.dumps(row, default=str) + "\n" for row in rows).encode()


def as_json(rows: Any) -> bytes:
    return json.dumps(rows, indent=1, default=str).encode()


def as_separated(rows: Any, delimiter: str) -> bytes:
    text = io.StringIO()
    named = [row for row in rows if isinstance(row, dict)]
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerow(dict.fromkeys(name for row in named[:1] for name in row))
    writer.writerows(list(row.values()) for row in named)  # ragged where a row is
    return text.getvalue().encode(errors="replace")


def as_parquet(rows: Any) -> bytes:
    try:
        table = pa.Table.from_pylist([row for row in rows if isinstance(row, dict)])
        out = io.BytesIO()
        pyarrow.parquet.write_table(table, out)
    except (pa.ArrowException, UnicodeError, ValueError, TypeError, OverflowError):
        return as_parquet(ROWS)  # this format has no place for them
    return out.getvalue()


KINDS: dict[str, Callable[[Any], bytes]] = {
    "jsonl": as_jsonl,
    "json": as_json,
    "csv": lambda rows: as_separated(rows, ","),
    "tsv": lambda rows: as_separated(rows, "\t"),
    "parquet": as_parquet,
}


def prepared(
    factory: pytest.TempPathFactory, kind: str, content: bytes, **columns: Any
) -> tuple[Ended, Path]:
    root = factory.mktemp("data") / "project"
    root.mkdir()
    (root / f"rows.{kind}").write_bytes(content)
    source = {"kind": "files", "train": f"rows.{kind}"}
    source["columns"] = {"source": "q", "target": "a", **columns}
    row = {"task": "summarization", "source": source, "validation_size": 2, "test_size": 2}
    (root / "params.yaml").write_text(yaml.safe_dump({"data": {"own": row}}))
    return ends_well(prepare.main, root, "own"), root


def check(ended: Ended, root: Path, kind: str) -> None:
    if ended.status:
        assert f"rows.{kind}" in ended.message or "data.own" in ended.message
    else:
        for split in ("train", "validation", "test"):
            lines = (root / "data" / "own" / f"{split}.jsonl").read_bytes().decode().splitlines()
            assert all(json.loads(line)["source"].strip() for line in lines)
            assert lines
    shutil.rmtree(root.parent)


@pytest.mark.parametrize("kind", KINDS)
@inputs(0.04)
@given(rows=spoilt(ROWS))
def test_any_rows(kind: str, rows: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    check(*prepared(tmp_path_factory, kind, KINDS[kind](rows)), kind)


@pytest.mark.parametrize("kind", KINDS)
@inputs(0.03)
@given(data=st.data())
def test_any_bytes(kind: str, data: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    content = data.draw(damaged(KINDS[kind](ROWS)))
    check(*prepared(tmp_path_factory, kind, content), kind)


@inputs(0.03)
@given(columns=st.dictionaries(st.sampled_from(["source", "target", "answer"]), ANYTHING))
def test_any_columns(columns: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    ended, root = prepared(tmp_path_factory, "jsonl", as_jsonl(ROWS), **columns)
    assert ended.status == 0 or any(
        name in ended.message for name in ("params.yaml", "data.own", "rows.jsonl")
    )
    shutil.rmtree(root.parent)


LONG = "x" * (50_000 * INPUTS)  # of the record: 50 MB
WRONG = {
    "a key twice": ("jsonl", b'{"q": "1", "a": "2", "q": "3"}\n', "line 1: .*'q' stands twice"),
    "a key twice, in a list": ("json", b'[{"q": "1", "a": "2", "q": "3"}]', "'q' stands twice"),
    "a long number": ("jsonl", b'{"q": ' + b"9" * 5000 + b', "a": "2"}\n', "line 1: not valid"),
    "half a pair": ("jsonl", b'{"q": "\\ud800", "a": "2"}\n', "line 1: column 'q' holds half"),
    "infinity": ("jsonl", b'{"q": "1", "a": Infinity}\n', "'a' holds no finite number"),
    "nested without end": ("jsonl", b'{"q": ' + b"[" * 100_000 + b"\n", "line 1: not valid JSON"),
    "a column twice": ("csv", b"q,a,q\n1,2,3\n", "names a column twice: q, a, q"),
    "another encoding": ("csv", "q,a\nü,2\n".encode("utf-16"), "not UTF-8"),
    "only a header": ("csv", b"q,a\n", "0 distinct sources"),
    "an empty file": ("parquet", b"", "not a readable Parquet file"),
    "escapes of a terminal": ("jsonl", b'{"\\u001b[2J": 1}\n', "no column 'q'; there are: ␛"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_said(what: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    kind, content, message = WRONG[what]
    ended, _ = prepared(tmp_path_factory, kind, content)
    assert ended.status == 2
    assert re.search(message, ended.message), ended.message


@pytest.mark.parametrize("kind", KINDS)
def test_a_field_of_megabytes_is_a_row_like_any_other(
    kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rows = [*ROWS, {"q": LONG, "a": "Long."}]
    ended, root = prepared(tmp_path_factory, kind, KINDS[kind](rows))
    assert ended.status == 0
    assert sum(f.stat().st_size for f in (root / "data").rglob("*.jsonl")) > len(LONG)
    shutil.rmtree(root.parent)


def test_a_parquet_column_twice_is_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    table = pa.table([pa.array(["1"]), pa.array(["2"]), pa.array(["3"])], names=["q", "a", "q"])
    out = io.BytesIO()
    pyarrow.parquet.write_table(table, out)
    ended, _ = prepared(tmp_path_factory, "parquet", out.getvalue())
    assert "names a column twice" in ended.message


PATHS = ["rows.jsonl/x.jsonl", "gone.jsonl", "..", "/dev/null", "x" * 300 + ".csv", "folder.jsonl"]


@pytest.mark.parametrize("path", PATHS)
def test_a_path_that_is_no_file_is_named(path: str, tmp_path: Path) -> None:
    root = tmp_path / "project"
    (root / "folder.jsonl").mkdir(parents=True)
    (root / "rows.jsonl").write_bytes(as_jsonl(ROWS))
    source = {"kind": "files", "train": path, "columns": {"source": "q", "target": "a"}}
    params = {"data": {"own": {"task": "summarization", "source": source}}}
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    ended = ends_well(prepare.main, root, "own")
    assert ended.status == 2
    assert path[:20] in ended.message


def test_a_test_set_that_is_refused_leaves_the_former_ones(tmp_path: Path) -> None:
    root = tmp_path / "project"
    root.mkdir()
    (root / "rows.jsonl").write_bytes(as_jsonl(ROWS))
    (root / "bad.jsonl").write_bytes(b'{"q": 1}\n')
    columns = {"source": "q", "target": "a"}
    trained = {"kind": "files", "train": "rows.jsonl", "columns": columns}
    tested = {"kind": "files", "test": "bad.jsonl", "columns": columns}
    data = {
        "own": {"task": "summarization", "source": trained},
        "else": {"task": "summarization", "source": tested, "tests": "own"},
    }
    params = {"data": data, "experiment": {"test_sets": ["else"]}}
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    assert ends_well(prepare.main, root, "own").status == 0
    (root / "test_sets" / "else").mkdir(parents=True)
    (root / "test_sets" / "else" / "test.jsonl").write_text("{}\n")
    assert "bad.jsonl, line 1" in ends_well(prepare_tests.main, root).message
