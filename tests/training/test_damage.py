"""What a fault of the machine did to a run's files is seen, said, and made anew."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from skd.training import loop
from skd.training.loop import train
from skd.training.teacher_cache import keep
from tests.tiny import VOCABULARY, build
from tests.training.test_loop import EXAMPLES, make_run, weights


class KilledError(Exception):
    pass


def cut_off(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def changed(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def gone(path: Path) -> None:
    path.unlink()


def killed(folder: Path, monkeypatch) -> None:
    """A run that ended with a state of step 4 and best weights of step 2 or 4."""
    update = loop.update

    def until(run, step, *rest):
        if step == 5:
            raise KilledError
        return update(run, step, *rest)

    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(loop, "update", until)
        train(make_run(folder, "skd"))


STATE = ("model.safetensors", "optimizer.safetensors", "counts.json", "seal.json")
FILES = [f"state/{name}" for name in STATE] + ["best/*/model.safetensors", "best/*/seal.json"]


@pytest.fixture(scope="module")
def wanted(tmp_path_factory) -> dict[str, torch.Tensor]:
    run = make_run(tmp_path_factory.mktemp("left alone"), "skd")
    train(run)
    return weights(run)


@pytest.mark.parametrize("damage", [cut_off, changed, gone])
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_state_is_begun_anew_and_ends_the_same(
    file, damage, wanted, tmp_path, monkeypatch, capsys
) -> None:
    killed(tmp_path, monkeypatch)
    for path in tmp_path.glob(file):
        damage(path)
    run = make_run(tmp_path, "skd")
    train(run)
    assert "the run begins anew" in capsys.readouterr().err
    assert all(torch.equal(value, wanted[name]) for name, value in weights(run).items())


def test_a_whole_state_is_gone_on_from(wanted, tmp_path, monkeypatch, capsys) -> None:
    killed(tmp_path, monkeypatch)
    steps = []
    update = loop.update
    with monkeypatch.context() as patch:
        patch.setattr(loop, "update", lambda *words: steps.append(words[1]) or update(*words))
        run = make_run(tmp_path, "skd")
        train(run)
    assert steps[0] == 4
    assert capsys.readouterr().err == ""
    assert all(torch.equal(value, wanted[name]) for name, value in weights(run).items())


@pytest.mark.parametrize("length", [0, 5, 100, -1])
def test_kept_states_that_were_cut_off_are_made_anew(length, tmp_path, capsys) -> None:
    path = tmp_path / "teacher.safetensors"
    teacher = build(seed=2, dtype=torch.float32).requires_grad_(False)
    whole = keep(path, teacher, EXAMPLES, VOCABULARY, 4).states.clone()
    os.truncate(path, length % path.stat().st_size)
    assert torch.equal(keep(path, teacher, EXAMPLES, VOCABULARY, 4).states, whole)
    assert f"{path} is damaged" in capsys.readouterr().err
