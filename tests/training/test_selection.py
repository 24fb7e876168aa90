"""Which weights a run ends with: the best that its counts name, after any kill."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from skd.engine.pair import Pair
from skd.engine.sequences import TokenExample
from skd.errors import UserError
from skd.models.adapters import add_adapter_
from skd.models.quantised import quantise_
from skd.results.runs import Validation
from skd.training import checkpoint, loop
from skd.training.loop import train
from skd.training.methods import ResponseSource
from skd.training.run import TrainingRun
from skd.training.settings import Adapter, Distill, MethodSettings, Optimisation
from tests.tiny import VOCABULARY, build, prompts

TRUTH = [TokenExample(p, (*r, 1)) for p, r in zip(prompts(8), prompts(8, seed=5), strict=True)]
Weights = dict[str, torch.Tensor]


class KilledError(Exception):
    pass


class Validator:
    """Gives these metrics one after the other, and keeps the weights that it saw."""

    def __init__(self, *metrics: float) -> None:
        self.metrics: Iterator[float] = iter(metrics)
        self.seen: list[Weights] = []

    def __call__(self, model) -> Validation:
        self.seen.append({name: value.clone() for name, value in model.state_dict().items()})
        metric = next(self.metrics, None)
        if metric is None:
            raise KilledError
        return Validation(metric=metric)


def make_run(folder: Path, validate: Validator, **changes: object) -> TrainingRun:
    """Nine steps; validated after 3, 6 and 9, saved after 2, 4, 6 and 8."""
    optimisation = Optimisation(
        steps=9, batch_size=4, learning_rate=0.01, validate_every=3, checkpoint_every=2, **changes
    )
    student = build(seed=1, dtype=torch.float32)
    if optimisation.weights != "float32":
        student.bfloat16()
    if optimisation.weights == "nf4":
        quantise_(student, "nf4", "cpu")
    if optimisation.adapter is not None:
        add_adapter_(student, optimisation.adapter, 20)
    return TrainingRun(
        settings=MethodSettings("sft"),
        distill=Distill(optimisation),
        pair=Pair(student, None, VOCABULARY),
        known={ResponseSource.GROUND_TRUTH: TRUTH},
        max_new_tokens=8,
        seed=20,
        validate=validate,
        scratch=folder,
    )


def equal(run: TrainingRun, weights: Weights) -> bool:
    own = run.pair.student.state_dict()
    return all(torch.equal(own[name], value) for name, value in weights.items())


def while_saving_the_state(monkeypatch, student) -> None:
    saved = loop.save_state

    def save(target, trained, counts, group) -> None:
        if counts["step"] == 6:
            raise KilledError
        saved(target, trained, counts, group)

    monkeypatch.setattr(loop, "save_state", save)


def while_writing_the_best(monkeypatch, student) -> None:
    calls = iter(range(10))
    write = checkpoint._save

    def save(tensors, path) -> None:
        write(tensors, path)
        if path.parent.parent.name == "best" and next(calls) == 1:
            raise KilledError

    monkeypatch.setattr(checkpoint, "_save", save)


def while_forgetting_the_former_best(monkeypatch, student) -> None:
    forget = loop._forget
    calls = iter(range(10))

    def then_killed(run, keep) -> None:
        forget(run, keep)
        if next(calls) == 1:
            raise KilledError

    monkeypatch.setattr(loop, "_forget", then_killed)


@pytest.mark.parametrize(
    "kill",
    [while_saving_the_state, while_writing_the_best, while_forgetting_the_former_best],
)
def test_a_killed_runs_best_weights_are_those_that_its_counts_name(kill, tmp_path, monkeypatch):
    """The repeated step scores less than before the kill, as it may on an accelerator."""
    first = Validator(5.0, 9.0)
    broken = make_run(tmp_path, first)
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        kill(patch, broken.pair.student)
        train(broken)
    again = make_run(tmp_path, Validator(4.0, 3.0))
    counts = train(again)
    assert (counts.best_step, counts.best_metric, counts.misses) == (3, 5.0, 2)
    assert equal(again, first.seen[0])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"weights": "bfloat16", "optimiser": "adamw_8bit"},
        {"adapter": Adapter(2), "gradient_checkpointing": True},
        {"adapter": Adapter(2), "weights": "nf4"},
    ],
)
def test_a_run_killed_in_a_validation_ends_as_if_it_had_not_been(changes, tmp_path) -> None:
    whole = make_run(tmp_path / "whole", Validator(5.0, 9.0, 7.0), **changes)
    wanted = train(whole)
    with pytest.raises(KilledError):
        train(make_run(tmp_path / "broken", Validator(5.0, 9.0), **changes))
    again = make_run(tmp_path / "broken", Validator(7.0), **changes)
    counts = train(again)
    assert (counts.best_step, counts.best_metric) == (wanted.best_step, wanted.best_metric)
    assert equal(again, dict(whole.pair.student.state_dict()))


def test_only_best_weights_that_may_be_asked_for_stay_on_disk(tmp_path) -> None:
    train(make_run(tmp_path, Validator(1.0, 2.0, 3.0)))
    left = {int(folder.name) for folder in (tmp_path / "best").iterdir()}
    assert left == {6, 9}  # the state of step 8 names those of step 6


@pytest.mark.parametrize("metric", [math.nan, math.inf, -math.inf])
def test_a_metric_that_is_no_number_says_so(metric, tmp_path) -> None:
    with pytest.raises(UserError, match=r"validation metric is .* after step 3"):
        train(make_run(tmp_path, Validator(metric)))
