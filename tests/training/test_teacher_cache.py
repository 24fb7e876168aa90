"""The teacher's states on disk say what a fresh forward says, and are made once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from skd.engine.generation import generate
from skd.engine.sequences import TokenExample, collate
from skd.engine.states import batch_states
from skd.training import teacher_cache
from skd.training.methods import METHODS
from skd.training.teacher_cache import KeptStates, keep, pays
from tests.tiny import FAMILIES, VOCABULARY, build


def examples(count: int = 7) -> list[TokenExample]:
    return [
        TokenExample(tuple(range(2, 4 + i % 5)), (*range(5, 7 + i % 3), 10 + i, 1))
        for i in range(count)
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_kept_states_are_those_of_a_fresh_forward(family: str, tmp_path: Path) -> None:
    teacher = build(family, seed=3)
    rows = examples()
    kept = keep(tmp_path / "states.safetensors", teacher, rows, VOCABULARY, 3)
    batch = collate(rows, VOCABULARY.pad)
    with torch.no_grad():
        fresh = batch_states(teacher, batch)[batch.predictors]
    torch.testing.assert_close(torch.cat([kept[row] for row in rows]), fresh)
    assert len(kept) == len(rows)
    assert kept.passes == 3
    assert kept.teacher_tokens == sum(len(row.prompt) + len(row.response) for row in rows)


def test_a_teacher_in_training_is_kept_as_it_is_in_use(tmp_path: Path) -> None:
    teacher, rows = build(seed=3, attention_dropout=0.9), examples()
    still = keep(tmp_path / "a.safetensors", teacher, rows, VOCABULARY, 3).states
    again = keep(tmp_path / "b.safetensors", teacher.train(), rows, VOCABULARY, 3).states
    assert torch.equal(still, again)


def test_a_second_run_reads_the_file_and_asks_no_teacher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher, rows, path = build(seed=3), examples(), tmp_path / "a.safetensors"
    first = keep(path, teacher, rows, VOCABULARY, 3)

    def refuse(*_: object) -> None:
        raise AssertionError("the teacher was asked again")

    monkeypatch.setattr(teacher_cache, "_make", refuse)
    second = keep(path, teacher, rows, VOCABULARY, 3)
    assert isinstance(second, KeptStates)
    assert torch.equal(first.states, second.states)
    assert second.seconds == first.seconds
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


def test_auto_keeps_what_is_asked_for_again_and_is_not_too_large(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    teacher, rows = build(seed=3), examples()
    assert pays("auto", len(rows) + 1, rows, teacher)
    assert not pays("auto", len(rows), rows, teacher)
    assert pays("always", 0, rows, teacher)
    assert not pays("never", 1e9, rows, teacher)
    monkeypatch.setattr(teacher_cache, "LARGEST", 100)
    assert not pays("auto", len(rows) + 1, rows, teacher)


def test_the_share_of_rows_known_beforehand() -> None:
    shares = {name: method.known_share for name, method in METHODS.items()}
    assert shares == {
        "sft": 0.0,
        "seq_kd": 0.0,
        "supervised_kd": 1.0,
        "on_policy_kd": 0.0,
        "on_policy_hard": 0.0,
        "imit_kd": 0.5,
        "skd": 0.0,
        "skd_mixed_loss": 0.0,
        "skd_kept": 0.0,
        "ca_opd": 0.0,
        "skd_with_teacher": 0.5,
        "skd_and_teacher": 1.0,
        "student_and_teacher": 1.0,
        "mixed_skd": 0.5,
        "two_stage_kd": 0.5,
        "distillm2": 1.0,
        "seq_kd_then_skd": 0.0,
    }


def test_rows_are_told_of_as_they_get_their_states(tmp_path: Path) -> None:
    teacher, rows, told = build(seed=3), examples(), []
    keep(tmp_path / "states.safetensors", teacher, rows, VOCABULARY, 3, told.append)
    keep(tmp_path / "states.safetensors", teacher, rows, VOCABULARY, 3, told.append)
    assert told == [3, 3, 1]  # a file that is there makes none


def test_rows_are_told_of_as_they_get_their_responses() -> None:
    told: list[int] = []
    prompts = [example.prompt for example in examples()]
    generate(build(seed=3), prompts, VOCABULARY, 4, 3, done=told.append)
    assert told == [3, 3, 1]
