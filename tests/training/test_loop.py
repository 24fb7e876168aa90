"""The loop: micro-batches, exact resume, selection, budgets, frozen teachers."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from pathlib import Path

import pytest
import torch

from skd.engine import meter
from skd.engine.meter import Phase
from skd.engine.pair import Pair
from skd.engine.sequences import TokenExample
from skd.engine.settings import Acceptance
from skd.errors import UserError
from skd.files import write_folder
from skd.results.runs import Validation
from skd.training.checkpoint import load_state, save_state
from skd.training.counts import RunCounts
from skd.training.loop import train
from skd.training.methods import METHODS, ResponseSource
from skd.training.optimiser import Trained
from skd.training.run import TrainingRun
from skd.training.schedule import batch_indices
from skd.training.settings import Distill, MethodSettings, Optimisation
from skd.training.step import batch_loss, prepare_steps
from skd.training.teacher_cache import keep
from tests.reference import FORMULAS, written_loss
from tests.tiny import SIZE, VOCABULARY, build, prompts

EXAMPLES = [TokenExample(p, (*r, 1)) for p, r in zip(prompts(10), prompts(10, seed=5), strict=True)]
TAUGHT = [TokenExample(p, (*r, 1)) for p, r in zip(prompts(10), prompts(10, seed=6), strict=True)]
OPTIMISATION = Optimisation(
    steps=6, batch_size=4, learning_rate=0.01, validate_every=2, checkpoint_every=2
)


class InterruptedRunError(Exception):
    pass


def make_run(folder: Path, method: str = "skd", examples=None, **changes) -> TrainingRun:
    distill_changes = changes.pop("distill", {})
    optimisation = dataclasses.replace(OPTIMISATION, **changes.pop("optimisation", {}))
    teacher = build(seed=2, dtype=torch.float32).requires_grad_(False)
    fields = {
        "settings": MethodSettings(method, acceptance=Acceptance("top_k", 3)),
        "distill": Distill(optimisation, **distill_changes),
        "pair": Pair(
            build(seed=1, dtype=torch.float32, attention_dropout=optimisation.dropout),
            teacher if METHODS[method].needs_teacher else None,
            VOCABULARY,
        ),
        "known": {
            ResponseSource.GROUND_TRUTH: examples or EXAMPLES,
            ResponseSource.TEACHER: TAUGHT,
        },
        "max_new_tokens": 8,
        "seed": 20,
        "validate": lambda model: Validation(metric=float(len(list(folder.iterdir())))),
        "scratch": folder,
    }
    return TrainingRun(**{**fields, **changes})


def weights(run: TrainingRun) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in run.pair.student.state_dict().items()}


def log(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def curve(folder: Path) -> list[tuple]:
    names = ("step", "loss", "kl", "acceptance_rate", "response_length", "grad_norm")
    return [tuple(row[n] for n in names) for row in log(folder)]


def rising() -> object:
    """A validation whose metric rises, so that the last weights are the best."""
    seen = iter(range(1000))
    return lambda model: Validation(metric=float(next(seen)), loss=1.0)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_moves_the_student_and_logs_what_it_did(method, tmp_path) -> None:
    run = make_run(tmp_path, method, validate=rising())
    before = weights(run)
    counts = train(run)
    assert any(not torch.equal(before[name], value) for name, value in weights(run).items())
    rows = log(tmp_path)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert all(math.isfinite(row["loss"]) and row["response_length"] > 0 for row in rows)
    assert counts.prompts == 24
    sampled = METHODS[method].response == "interleaved"
    assert any(row["acceptance_rate"] is not None for row in rows) == sampled
    assert (counts.teacher_passes > 0) == METHODS[method].needs_teacher
    asked = [row["kl"] is not None for row in rows]
    half = len(rows) // 2
    if method == "seq_kd_then_skd":  # the first half is fine-tuning, which asks no teacher
        assert asked == [False] * half + [True] * half
    else:
        assert set(asked) == {METHODS[method].needs_teacher}


@pytest.mark.parametrize("method", ["sft", "skd", "imit_kd", "distillm2"])
def test_the_update_does_not_depend_on_micro_batches(method, tmp_path) -> None:
    """Ragged rows: a mean of micro-batch means would differ.

    By a tenth of a step and more; Adam makes a hundredth of one from fp32 sums in another order,
    where a gradient is next to nothing.
    """
    ends = []
    for size in (None, 1, 3):
        folder = tmp_path / str(size)
        changes = {"micro_batch_size": size, "steps": 2, "clip": 1e9}
        run = make_run(folder, method, optimisation=changes, validate=rising())
        run.pair.student.double()
        if run.pair.teacher is not None:
            run.pair.teacher.double()
        train(run)
        ends.append(weights(run))
    for other in ends[1:]:
        for name, value in ends[0].items():
            assert torch.allclose(value, other[name], atol=5e-4), name


@pytest.mark.parametrize("step", [0, 4])
@pytest.mark.parametrize("method", METHODS)
def test_the_loss_of_a_batch_is_that_of_its_rows_one_by_one(method, step, tmp_path) -> None:
    """In both halves of a run; a row has the loss of the source that its response comes from.

    Norms compute in fp32, in sums whose order follows the shape.
    """
    run = make_run(tmp_path, method)
    student, teacher, row = run.pair.student.double(), build(seed=2), METHODS[method]
    if run.pair.teacher is not None:
        run.pair.teacher.double()
    (prepared,) = prepare_steps(run, step)
    batch, taught = prepared.batch, {example.prompt + example.response for example in TAUGHT}
    total, kl = batch_loss(run, batch, 0.0)
    total.backward()
    gradients = [parameter.grad for parameter in student.parameters()]
    student.zero_grad(set_to_none=True)
    wanted, wanted_kl = torch.zeros(()), torch.zeros(())
    replaced = torch.zeros_like(batch.tokens, dtype=torch.bool)
    if batch.replaced is not None:
        replaced |= batch.replaced
    rows = zip(batch.tokens, replaced, batch.prompt_lengths, batch.lengths, strict=True)
    for tokens, marks, start, stop in rows:
        ids, response = tokens[None, :stop], slice(int(start) - 1, int(stop) - 1)
        ours = student(input_ids=ids, use_cache=False).logits[0, response, :SIZE]
        with torch.no_grad():
            theirs = teacher(input_ids=ids, use_cache=False).logits[0, response, :SIZE]
        own_loss = row.otherwise_loss is not None and tuple(ids[0].tolist()) in taught
        loss = row.otherwise_loss if own_loss else row.loss
        wanted = wanted + written_loss(
            loss, run.settings.divergence, ours, theirs, tokens[start:stop], marks[start:stop]
        )
        wanted_kl = (
            wanted_kl + FORMULAS["forward_kl"](theirs.softmax(-1), ours.softmax(-1), 0).sum()
        )
    wanted.backward()
    assert total.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert kl is None or kl.item() == pytest.approx(wanted_kl.item(), rel=1e-5)
    for gradient, parameter in zip(gradients, student.parameters(), strict=True):
        assert torch.allclose(gradient, parameter.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("method", "rows"), [("imit_kd", 1), ("distillm2", 2)])
def test_steps_that_share_a_rollout_have_prompts_of_their_own(method, rows, tmp_path) -> None:
    """A paired method has two rows for each of them, in one batch."""
    run = make_run(tmp_path, method, distill={"rollout_steps": 2})
    steps = list(prepare_steps(run, 2))
    assert [prepared.staleness for prepared in steps] == [0, 1]
    assert [prepared.responses is None for prepared in steps] == [False, True]
    for step, prepared in enumerate(steps, 2):
        batch = prepared.batch
        asked = [
            tuple(tokens[:start].tolist())
            for tokens, start in zip(batch.tokens, batch.prompt_lengths, strict=True)
        ]
        places = batch_indices(len(EXAMPLES), 4, step, run.seed)
        assert asked == [EXAMPLES[place].prompt for place in places for _ in range(rows)]


@pytest.mark.parametrize(
    ("method", "rollout_steps", "stop_at"),
    [
        *(("skd", rollout_steps, stop_at) for rollout_steps in (1, 2) for stop_at in (1, 3, 5)),
        *(
            (method, rollout_steps, stop_at)
            for method in ("distillm2", "seq_kd_then_skd")
            for rollout_steps, stop_at in ((2, 3), (1, 5))
        ),
    ],
)
def test_a_resumed_run_is_bit_equal_to_an_uninterrupted_one(
    method, rollout_steps, stop_at, tmp_path
):
    options = {
        "method": method,
        "distill": {"rollout_steps": rollout_steps},
        "optimisation": {"dropout": 0.2, "validate_every": 2},
    }
    whole = make_run(tmp_path / "whole", **options, validate=lambda m: Validation(metric=1.0))
    train(whole)

    calls = []

    def breaking(model):
        calls.append(model)
        if len(calls) == (stop_at + 1) // 2:
            raise InterruptedRunError
        return Validation(metric=1.0)

    broken = make_run(tmp_path / "broken", **options, validate=breaking)
    with pytest.raises(InterruptedRunError):
        train(broken)
    again = make_run(tmp_path / "broken", **options, validate=lambda m: Validation(metric=1.0))
    counts = train(again)
    assert counts.step == 6
    assert curve(tmp_path / "broken") == curve(tmp_path / "whole")
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(again)[name]), name


def test_a_state_is_kept_when_shared_rollouts_do_not_fit_its_interval(tmp_path) -> None:
    """Rollouts end at steps 4 and 8, the interval at 3 and 6: the state is of step 4."""

    def breaking(model):
        raise InterruptedRunError

    options = {"checkpoint_every": 3, "validate_every": 6, "steps": 8}
    run = make_run(tmp_path, distill={"rollout_steps": 4}, optimisation=options, validate=breaking)
    with pytest.raises(InterruptedRunError):
        train(run)
    assert json.loads((tmp_path / "state" / "counts.json").read_text())["step"] == 4


def test_the_best_validated_weights_are_kept_and_ties_go_to_the_earlier(tmp_path) -> None:
    metrics = iter([1.0, 5.0, 5.0])
    snapshots = []

    def validate(model):
        snapshots.append({n: v.clone() for n, v in model.state_dict().items()})
        return Validation(metric=next(metrics))

    run = make_run(tmp_path, validate=validate)
    counts = train(run)
    assert (counts.best_step, counts.best_metric) == (4, 5.0)
    assert all(torch.equal(snapshots[1][n], v) for n, v in weights(run).items())


def test_patience_stops_a_run_that_no_longer_improves(tmp_path) -> None:
    run = make_run(
        tmp_path,
        optimisation={"steps": 40, "patience": 2},
        validate=lambda m: Validation(metric=1.0),
    )
    assert train(run).step == 6  # the best at 2, misses at 4 and 6


def test_the_teacher_never_changes_or_gets_a_gradient(tmp_path) -> None:
    run = make_run(tmp_path, validate=rising())
    assert run.pair.teacher is not None
    before = {n: v.clone() for n, v in run.pair.teacher.state_dict().items()}
    train(run)
    assert all(p.grad is None for p in run.pair.teacher.parameters())
    assert not run.pair.teacher.training
    assert all(torch.equal(before[n], v) for n, v in run.pair.teacher.state_dict().items())


def test_an_empty_response_gives_no_nan(tmp_path) -> None:
    rows = [TokenExample((3, 4), ()), TokenExample((5,), (6, 1))] * 4
    run = make_run(tmp_path, "sft", examples=rows, validate=rising())
    train(run)
    assert all(math.isfinite(row["loss"]) for row in log(tmp_path))
    empty = make_run(
        tmp_path / "e", "sft", examples=[TokenExample((3,), ())] * 4, validate=rising()
    )
    train(empty)
    assert all(row["loss"] == 0.0 for row in log(tmp_path / "e"))


def test_a_loss_that_is_not_finite_is_an_error_with_a_remedy(tmp_path) -> None:
    run = make_run(tmp_path, "sft", validate=rising())
    with torch.no_grad():
        next(run.pair.student.parameters()).fill_(torch.nan)
    with pytest.raises(UserError, match="learning rate"):
        train(run)


def test_gradient_checkpointing_changes_no_number(tmp_path) -> None:
    plain = make_run(tmp_path / "a", validate=rising())
    saving = make_run(
        tmp_path / "b", optimisation={"gradient_checkpointing": True}, validate=rising()
    )
    train(plain)
    train(saving)
    for a, b in zip(curve(tmp_path / "a"), curve(tmp_path / "b"), strict=True):
        assert a[:5] == pytest.approx(b[:5], rel=1e-5)


def test_methods_get_the_same_prompts_in_the_same_order(tmp_path) -> None:
    """Equal budgets: what differs between methods is the response and the loss alone."""
    names = ("sft", "skd", "imit_kd", "distillm2", "seq_kd_then_skd")
    counts = [train(make_run(tmp_path / name, name, validate=rising())) for name in names]
    assert {(each.step, each.prompts) for each in counts} == {(6, 24)}


def test_state_files_are_safetensors_and_json(tmp_path) -> None:
    run = make_run(tmp_path, validate=rising())
    train(run)
    kinds = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
    assert kinds <= {".safetensors", ".json", ".jsonl"}


@pytest.mark.parametrize("weights", ["float32", "bfloat16"])
@pytest.mark.parametrize("optimiser", ["adamw", "adamw_8bit"])
def test_a_state_comes_back_as_it_was(tmp_path, weights, optimiser) -> None:
    settings = Optimisation(1, 1, 0.1, weights=weights, optimiser=optimiser)
    dtype = getattr(torch, weights)
    trained, restored = (Trained(build(seed=seed, dtype=dtype), settings) for seed in (1, 9))
    for parameter in trained.held.values():
        parameter.grad = torch.ones_like(parameter)
    trained.step(0.1)
    save_state(tmp_path / "state", trained, RunCounts(step=7, best_metric=2.5).to_json())
    counts = load_state(tmp_path / "state", restored, tmp_path / "best")
    assert RunCounts.from_json(counts) == RunCounts(step=7, best_metric=2.5)
    for kind in ("held", "full"):
        own, other = getattr(trained, kind), getattr(restored, kind)
        assert all(torch.equal(value, other[name]) for name, value in own.items())
    for index, values in trained.optimizer.state_dict()["state"].items():
        for name, value in values.items():
            back = restored.optimizer.state_dict()["state"][index][name]
            assert torch.equal(value, back)
            assert value.dtype == back.dtype


def test_an_interrupted_write_leaves_the_former_folder(tmp_path) -> None:
    target = tmp_path / "model"
    write_folder(target, lambda f: (f / "a").write_text("older"))
    write_folder(target, lambda f: (f / "a").write_text("old"))
    assert [path.name for path in tmp_path.iterdir()] == [target.name]

    def fail(folder: Path) -> None:
        (folder / "a").write_text("half")
        raise InterruptedRunError

    with pytest.raises(InterruptedRunError):
        write_folder(target, fail)
    assert (target / "a").read_text() == "old"


@pytest.mark.parametrize(
    "method", ["supervised_kd", "imit_kd", "mixed_skd", "two_stage_kd", "distillm2"]
)
def test_kept_states_train_the_same_student(method: str, tmp_path: Path) -> None:
    plain_run = make_run(tmp_path / "plain", method)
    fresh = train(plain_run)
    run = make_run(tmp_path / "kept", method)
    assert run.pair.teacher is not None
    read = TAUGHT if ResponseSource.TEACHER in METHODS[method].sources else EXAMPLES
    kept = keep(tmp_path / "states.safetensors", run.pair.teacher, read, VOCABULARY, 4)
    counts = train(dataclasses.replace(run, kept=kept))
    for name, value in weights(run).items():
        torch.testing.assert_close(value, weights(plain_run)[name], rtol=1e-3, atol=1e-5)
    assert counts.teacher_tokens < fresh.teacher_tokens
    assert (counts.teacher_tokens == 0) == (method == "supervised_kd")


def test_the_totals_of_a_run_grow_to_what_it_reports(tmp_path: Path, monkeypatch) -> None:
    """By a clock that goes on by one at each reading: the test depends on no machine's speed."""
    ticks = itertools.count()
    monkeypatch.setattr(meter.time, "process_time", lambda: float(next(ticks)))
    counts = train(make_run(tmp_path, "skd"))
    assert set(counts.phases) <= set(Phase)
    sampled = (Phase.SAMPLING, Phase.TEACHER, Phase.LOSS, Phase.OPTIMISER, Phase.VALIDATION)
    assert all(counts.phases[phase] > 0 for phase in sampled)
    rows = log(tmp_path)
    for name, total in counts.totals().items():
        steps = [row[name] for row in rows]
        assert steps == sorted(steps)
        assert steps[-1] == pytest.approx(total)
