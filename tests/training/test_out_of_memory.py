"""A step that finds no memory is made again: as it was, then with half the rows, then refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from skd.errors import UserError
from skd.training import step
from skd.training.loop import train
from skd.training.out_of_memory import RowsAtOnce
from skd.training.run import TrainingRun
from tests.training.test_loop import make_run, weights

REFUSALS = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
]


def refuse(monkeypatch, when) -> list[int]:
    """No memory for batches of which `when(rows, calls)` is true; gives the sizes that had some."""
    loss, calls, done = step.batch_loss, [0], []

    def limited(run, batch, progress):
        calls[0] += 1
        if when(len(batch.tokens), calls[0]):
            raise REFUSALS[calls[0] % 3]
        done.append(len(batch.tokens))
        return loss(run, batch, progress)

    monkeypatch.setattr(step, "batch_loss", limited)
    return done


def trained(folder: Path, **optimisation) -> tuple[TrainingRun, dict[str, torch.Tensor]]:
    run = make_run(folder, "skd", optimisation=optimisation)
    train(run)
    return run, weights(run)


def same(one, other) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


def test_half_the_rows_are_the_run_that_was_set_to_them(tmp_path, monkeypatch, capsys) -> None:
    """Bit for bit, from the first step on."""
    _, wanted = trained(tmp_path / "set", micro_batch_size=2)
    with monkeypatch.context() as patch:
        done = refuse(patch, lambda rows, _: rows > 2)
        run, found = trained(tmp_path / "halved")
    assert same(found, wanted)
    assert run.rows_at_once == RowsAtOnce(2)
    assert max(done) == 2
    said = capsys.readouterr().err
    assert said.count("2 rows at once from here on") == 1
    assert "micro_batch_size" in said


def test_memory_that_is_refused_once_changes_nothing(tmp_path, monkeypatch, capsys) -> None:
    """Also in a later micro-batch, behind gradients that are there already."""
    _, wanted = trained(tmp_path / "left alone", micro_batch_size=2)
    with monkeypatch.context() as patch:
        refuse(patch, lambda _, calls: calls in (2, 7))
        run, found = trained(tmp_path / "refused", micro_batch_size=2)
    assert same(found, wanted)
    assert run.rows_at_once == RowsAtOnce(None)
    assert capsys.readouterr().err == ""


def test_no_memory_for_one_row_names_what_to_set(tmp_path, monkeypatch) -> None:
    refuse(monkeypatch, lambda *_: True)
    run = make_run(tmp_path, "skd", description="toy")
    with pytest.raises(UserError, match="toy: out of memory") as error:
        train(run)
    for name in ("micro_batch_size", "gradient_checkpointing", "adapter"):
        assert name in str(error.value)


def test_another_error_is_none_of_memory() -> None:
    def make(rows: int) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        RowsAtOnce().fitting(make, 4, "toy")


def test_sizes_fall_by_half_and_stay() -> None:
    asked, at_once = [], RowsAtOnce()

    def make(rows: int) -> int:
        asked.append(rows)
        if rows > 3:
            raise MemoryError
        return rows

    assert at_once.fitting(make, 11, "toy") == 3
    assert asked == [11, 11, 6, 3]
    assert at_once.fitting(make, 11, "toy") == 3
    assert at_once.fitting(make, 2, "toy") == 2
    assert asked[4:] == [3, 2]


def test_a_gradient_that_is_no_number_gets_into_no_weights(tmp_path, monkeypatch) -> None:
    """The loss may be finite where its gradient is not."""
    run = make_run(tmp_path, "sft")
    before = weights(run)

    loss = step.batch_loss

    def steep(*words):
        total, kl = loss(*words)
        total.register_hook(lambda slope: slope * float("nan"))
        return total, kl

    monkeypatch.setattr(step, "batch_loss", steep)
    with pytest.raises(UserError, match="norm of its gradient is nan at step 1"):
        train(run)
    assert same(weights(run), before)
    assert not (tmp_path / "state").exists()


def test_the_settings_of_a_run_stay_as_they_are(tmp_path, monkeypatch) -> None:
    refuse(monkeypatch, lambda rows, _: rows > 1)
    run = make_run(tmp_path, "sft")
    settings = dataclasses.asdict(run.distill)
    train(run)
    assert dataclasses.asdict(run.distill) == settings
