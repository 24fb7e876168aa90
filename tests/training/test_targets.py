"""What a divergence compares: temperatures, reshaped targets, excluded tokens, chosen tokens."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch

from skd.engine.pair import Pair
from skd.engine.sequences import TokenExample
from skd.engine.settings import Acceptance
from skd.engine.states import batch_states
from skd.results.runs import Validation
from skd.training import step as steps
from skd.training.divergences import DIVERGENCES, logit_gradient
from skd.training.loop import train
from skd.training.losses import Terms, token_loss
from skd.training.methods import DIVERGENCE, METHODS, Loss, ResponseSource
from skd.training.run import TrainingRun
from skd.training.settings import Distill, Divergence, MethodSettings, Optimisation
from skd.training.step import batch_loss, prepare_steps
from skd.training.teacher_cache import keep
from tests.reference import FORMULAS
from tests.tiny import SIZE, VOCABULARY, build, prompts

NAMES = sorted(DIVERGENCES)
TOKENS, STEPS = 6, 4
TARGETS = torch.arange(TOKENS)
REPLACED = torch.tensor([True, False] * (TOKENS // 2))
TRUTH = [TokenExample(p, (*r, 1)) for p, r in zip(prompts(8), prompts(8, seed=5), strict=True)]
TAUGHT = [TokenExample(p, (*r, 1)) for p, r in zip(prompts(8), prompts(8, seed=6), strict=True)]


def logits(seed: int) -> torch.Tensor:
    source = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(TOKENS, SIZE, generator=source, dtype=torch.float64)


def made(loss: Loss, divergence: Divergence, student: torch.Tensor, teacher: torch.Tensor):
    terms = Terms(loss, divergence, TARGETS, REPLACED)
    return token_loss(terms, student.detach().clone(), teacher.clone())


# ------------------------------------------------------------------- excluded tokens
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9, 1.0])
def test_a_token_that_both_models_exclude_adds_nothing(name, beta) -> None:
    """Value and gradient are those of the vocabulary without it."""
    teacher, student = logits(1).log_softmax(-1), logits(2).log_softmax(-1)
    column = torch.full((TOKENS, 1), -math.inf, dtype=torch.float64)

    def gradient(first: torch.Tensor, second: torch.Tensor):
        values, slope = DIVERGENCES[name](first.clone(), second, beta)
        return values, logit_gradient(slope, second.clone())

    values, slope = gradient(teacher, student.clone())
    wider = (torch.cat([x, column], -1) for x in (teacher, student))
    wide_values, wide_slope = gradient(*wider)
    torch.testing.assert_close(wide_values, values, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(wide_slope[:, :-1], slope, rtol=1e-12, atol=1e-12)
    assert wide_slope[:, -1].tolist() == [0.0] * TOKENS


@pytest.mark.parametrize(("name", "excluded_by"), [("forward_kl", 1), ("reverse_kl", 0)])
def test_a_token_that_one_model_alone_excludes_is_infinitely_far(name, excluded_by) -> None:
    pair = [logits(1), logits(2)]
    pair[excluded_by][:, 3] = -math.inf
    values, _ = DIVERGENCES[name](pair[0].log_softmax(-1), pair[1].log_softmax(-1), 0.0)
    assert values.tolist() == [math.inf] * TOKENS


@pytest.mark.parametrize("settings", [Divergence(), Divergence(temperature=2.0, veto=0.5)])
def test_a_loss_over_excluded_tokens_is_finite(settings) -> None:
    student, teacher = logits(1), logits(2)
    student[:, -3:] = teacher[:, -3:] = -math.inf
    for part in made(Loss(0.5, 0.5), settings, student, teacher):
        assert part.isfinite().all()


# ---------------------------------------------------------------------- temperatures
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("heat", "own"), [(2.0, None), (0.5, None), (1.0, 0.5), (3.0, 0.7)])
@pytest.mark.parametrize("loss", [DIVERGENCE, *METHODS["ca_opd"].losses, Loss(0.3, 0.7)])
def test_a_temperature_is_that_of_the_formulas_distributions(name, heat, own, loss) -> None:
    """The value times the student's temperature squared; the gradient by autograd."""
    settings = Divergence(name, 0.3, temperature=heat, teacher_temperature=own)
    student, teacher = logits(1).requires_grad_(), logits(2)
    values, kl, gradient = made(loss, settings, student, teacher)
    pair = (teacher / (own or heat)).softmax(-1), (student / heat).softmax(-1)
    wanted = loss.divergence * heat**2 * FORMULAS[name](*pair, 0.3)
    if loss.divergence_on == "kept":
        wanted = wanted * ~REPLACED
    emitted = torch.nn.functional.cross_entropy(student, TARGETS, reduction="none")
    on = REPLACED if loss.cross_entropy_on == "replaced" else torch.ones_like(REPLACED)
    wanted = wanted + loss.cross_entropy * emitted * on
    wanted.sum().backward()
    torch.testing.assert_close(values, wanted.detach(), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(gradient, student.grad, rtol=1e-9, atol=1e-12)
    plain = FORMULAS["forward_kl"](teacher.softmax(-1), student.detach().softmax(-1), 0.0)
    torch.testing.assert_close(kl, plain, rtol=1e-9, atol=1e-12)


def test_gradients_keep_their_size_at_high_temperatures() -> None:
    norms = [
        made(DIVERGENCE, Divergence(temperature=heat), logits(1), logits(2))[2].norm().item()
        for heat in (50.0, 100.0)
    ]
    assert norms[0] == pytest.approx(norms[1], rel=0.05)


# -------------------------------------------------------------------------- the loop
def make_run(folder: Path, method: str, divergence: Divergence, **changes) -> TrainingRun:
    run = TrainingRun(
        settings=MethodSettings(method, divergence=divergence, acceptance=Acceptance("top_k", 2)),
        distill=Distill(Optimisation(steps=STEPS, batch_size=4, learning_rate=0.01)),
        pair=Pair(build(seed=1), build(seed=2).requires_grad_(False), VOCABULARY),
        known={ResponseSource.GROUND_TRUTH: TRUTH, ResponseSource.TEACHER: TAUGHT},
        max_new_tokens=8,
        seed=20,
        validate=lambda model: Validation(metric=1.0),
        scratch=folder,
    )
    return dataclasses.replace(run, **changes)


SOFTENED = Divergence("reverse_kl", temperature=2.0, teacher_temperature=1.5, veto=0.4)


@pytest.mark.parametrize("method", ["skd", "ca_opd", "skd_with_teacher", "skd_and_teacher"])
def test_states_kept_while_sampling_give_the_loss_of_a_fresh_forward(method, tmp_path) -> None:
    run = make_run(tmp_path, method, SOFTENED)
    assert run.pair.teacher is not None
    batch = next(prepare_steps(run, 0)).batch
    with torch.no_grad():
        states = batch_states(run.pair.teacher, batch)
    fresh = dataclasses.replace(batch, teacher_states=states)
    kept, anew = (batch_loss(run, one, 0.3)[0].item() for one in (batch, fresh))
    assert kept == pytest.approx(anew, rel=1e-7)


def test_states_kept_on_disk_train_the_same_student_at_a_temperature(tmp_path) -> None:
    plain = make_run(tmp_path / "plain", "supervised_kd", SOFTENED)
    train(plain)
    run = make_run(tmp_path / "kept", "supervised_kd", SOFTENED)
    assert run.pair.teacher is not None
    kept = keep(tmp_path / "states.safetensors", run.pair.teacher, TRUTH, VOCABULARY, 4)
    train(dataclasses.replace(run, kept=kept))
    for name, value in run.pair.student.state_dict().items():
        wanted = plain.pair.student.state_dict()[name]
        torch.testing.assert_close(value, wanted, rtol=1e-4, atol=1e-6)


# ------------------------------------------------------------------- reshaped targets
@pytest.mark.parametrize("name", ["forward_kl", "reverse_kl", "jsd"])
@pytest.mark.parametrize("veto", [0.3, 1.0])
def test_vetos_target_is_the_teacher_times_a_power_of_the_student(name, veto) -> None:
    """arXiv 2601.07155: exp(z_teacher + β·z_student), a constant to the gradient."""
    student, teacher = logits(1).requires_grad_(), logits(2)
    values, _, gradient = made(DIVERGENCE, Divergence(name, veto=veto), student, teacher)
    target = (teacher + veto * student.detach()).softmax(-1)
    wanted = FORMULAS[name](target, student.softmax(-1), 0.5)
    wanted.sum().backward()
    torch.testing.assert_close(values, wanted.detach(), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(gradient, student.grad, rtol=1e-9, atol=1e-12)


def test_vetos_power_falls_to_0_step_by_step(tmp_path, monkeypatch) -> None:
    seen = []
    loss = steps.response_loss

    def watched(terms, *rest):
        seen.append(terms.divergence.veto)
        return loss(terms, *rest)

    monkeypatch.setattr(steps, "response_loss", watched)
    train(make_run(tmp_path, "on_policy_kd", Divergence(veto=0.8)))
    assert seen == pytest.approx([0.8, 0.6, 0.4, 0.2])


# ---------------------------------------------------------------------- chosen tokens
@pytest.mark.parametrize("on", ["kept", "replaced"])
def test_a_token_that_is_left_out_adds_nothing_even_where_it_is_infinite(on) -> None:
    student, teacher = logits(1), logits(2)
    out = REPLACED if on == "kept" else ~REPLACED
    student[out, 3] = -math.inf
    values, _, gradient = made(Loss(1.0, divergence_on=on), Divergence(), student, teacher)
    alone, _, alone_gradient = made(DIVERGENCE, Divergence(), student, teacher)
    assert values[out].tolist() == [0.0] * (TOKENS // 2)
    assert not gradient[out].any()
    assert torch.equal(values[~out], alone[~out])
    assert torch.equal(gradient[~out], alone_gradient[~out])


def test_without_replaced_tokens_all_are_kept() -> None:
    whole, kept = (
        token_loss(Terms(loss, Divergence(), TARGETS), logits(1), logits(2))
        for loss in (DIVERGENCE, Loss(1.0, divergence_on="kept"))
    )
    for one, other in zip(whole, kept, strict=True):
        assert torch.equal(one, other)
