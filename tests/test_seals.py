"""A sealed folder: whatever becomes of a file of it is seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from skd.seals import SEAL, damaged, seal


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_bytes(b"\x00\x01")
    (tmp_path / "empty").touch()
    seal(tmp_path, {"last.json": "{}"})
    (tmp_path / "last.json").write_text("{}")
    return tmp_path


def test_a_whole_folder_is_whole_whatever_came_later(folder: Path) -> None:
    assert damaged(folder) is None
    (folder / "later").write_text("x")
    assert damaged(folder) is None


SPOILT = [None, b"\x00\x00", b"[1]", b'{"model/weights": "x"}']


@pytest.mark.parametrize("name", ["model/weights", "empty", "last.json", SEAL])
@pytest.mark.parametrize("content", SPOILT)
def test_a_file_that_is_gone_or_another_is_named(folder: Path, name: str, content) -> None:
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    assert damaged(folder) == (name if content != SPOILT[-1] or name != SEAL else "model/weights")


@pytest.mark.parametrize("name", ["model/weights", "last.json", SEAL])
def test_an_empty_file_is_named(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"")
    assert damaged(folder) == name
