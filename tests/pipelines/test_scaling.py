"""Another student's base lies in scratch, which stages and experiments share."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from pipelines.runs.folders import BASE, TEACHER_FOLDER
from pipelines.runs.inputs import DATA
from pipelines.schema import parse
from pipelines.stages import scaling
from skd.files import write_text
from skd.seals import seal
from tests.tiny import machine_in

PARAMS = parse(yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text()))


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A function that asks for the base, and what was made so far."""
    monkeypatch.chdir(tmp_path)
    write_text(BASE / TEACHER_FOLDER / "weights", "the teacher's")
    write_text(DATA / "toy" / "train.jsonl", "rows")
    made: list[str] = []

    def fill(folder: Path, name: str, **_: object) -> None:
        made.append(name)
        write_text(folder / name / "weights", "trained")
        seal(folder)

    monkeypatch.setattr(scaling, "_fill", fill)
    parameters = SimpleNamespace(
        student=PARAMS.scaling.students["narrow"], models=PARAMS.models, all_tasks=["toy"]
    )
    machine = machine_in(tmp_path / "scratch")
    return lambda: scaling._place("narrow", parameters, machine), made  # type: ignore[arg-type]


def test_it_is_made_once(place) -> None:
    ask, made = place
    assert ask() == ask()
    assert (ask() / "weights").read_text() == "trained"
    assert made == ["narrow"]


def test_it_is_made_anew_where_it_is_damaged_or_was_made_of_something_else(place) -> None:
    ask, made = place
    (ask() / "weights").write_text("cut")
    assert (ask() / "weights").read_text() == "trained"
    for decisive in (BASE / TEACHER_FOLDER / "weights", DATA / "toy" / "train.jsonl"):
        write_text(decisive, "another content")
        before = ask()
        write_text(decisive, "one more")
        assert ask() != before
    assert len(made) == 6
