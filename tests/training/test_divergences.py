"""Laws of the divergences, in fp64 against formulas written out term by term."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skd.training.divergences import DIVERGENCES, logit_gradient
from tests.reference import FORMULAS

NAMES = sorted(DIVERGENCES)


def value(name: str, teacher: torch.Tensor, student: torch.Tensor, beta: float) -> torch.Tensor:
    return DIVERGENCES[name](teacher.clone(), student, beta)[0]


def logs(seed: int, rows: int = 7, size: int = 11, dtype=torch.float64) -> torch.Tensor:
    source = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(rows, size, generator=source, dtype=dtype)).log_softmax(-1)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("beta", [0.1, 0.5, 0.9])
def test_values_equal_the_formula(name, beta) -> None:
    teacher, student = logs(1), logs(2)
    values = value(name, teacher, student, beta)
    wanted = FORMULAS[name](teacher.exp(), student.exp(), beta)
    assert values.tolist() == pytest.approx(wanted.tolist(), rel=1e-12)


@settings(max_examples=40)
@given(name=st.sampled_from(NAMES), seed=st.integers(0, 9999), beta=st.floats(0, 1))
def test_never_negative_and_zero_at_equality(name, seed, beta) -> None:
    teacher, student = logs(seed), logs(seed + 1)
    assert (value(name, teacher, student, beta) >= -1e-12).all()
    assert value(name, teacher, teacher, beta).abs().max() < 1e-12


def test_jsd_is_symmetric_at_one_half_and_only_there() -> None:
    teacher, student, jsd = logs(1), logs(2), functools.partial(value, "jsd")
    assert torch.allclose(jsd(teacher, student, 0.5), jsd(student, teacher, 0.5), rtol=1e-12)
    assert not torch.allclose(jsd(teacher, student, 0.3), jsd(student, teacher, 0.3))
    assert torch.allclose(jsd(teacher, student, 0.3), jsd(student, teacher, 0.7), rtol=1e-12)
    assert (jsd(teacher, student, 0.5) <= math.log(2)).all()


def test_the_ends_of_jsd_are_the_limits_of_its_scaled_values() -> None:
    teacher, student, jsd = logs(1), logs(2), functools.partial(value, "jsd")
    tiny = 1e-8
    assert torch.allclose(jsd(teacher, student, tiny) / tiny, jsd(teacher, student, 0.0), rtol=1e-3)
    near = jsd(teacher, student, 1 - tiny) / tiny
    assert torch.allclose(near, jsd(teacher, student, 1.0), rtol=1e-3)
    assert torch.equal(jsd(teacher, student, 0.0), value("forward_kl", teacher, student, 0))
    assert torch.equal(jsd(teacher, student, 1.0), value("reverse_kl", teacher, student, 0))


def test_skewed_divergences_reach_the_kls_without_skew() -> None:
    teacher, student = logs(1), logs(2)
    for skewed, plain in (("skew_kl", "forward_kl"), ("skew_rkl", "reverse_kl")):
        wanted = value(plain, teacher, student, 0)
        assert torch.equal(value(skewed, teacher, student, 0.0), wanted)
        assert (value(skewed, teacher, student, 0.4) < wanted).all()
        assert value(skewed, teacher, student, 1.0).abs().max() < 1e-12


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tokens_that_the_teacher_excludes_give_numbers_and_gradients(name, beta, dtype) -> None:
    """A teacher probability of 0 is no NaN; where the true value is infinite it stays so."""
    teacher = torch.tensor([[2.0, 1.0, -math.inf, 0.0]]).log_softmax(-1).to(dtype)
    student = torch.tensor([[1.0, 0.5, -30.0, 0.0]], dtype=dtype).log_softmax(-1)
    values, slope = DIVERGENCES[name](teacher, student, beta)
    assert not values.isnan().any()
    if values.isfinite().all():
        assert logit_gradient(slope, student).isfinite().all()


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"adaptive_kl"}))  # constant weights
@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_gradients_equal_finite_differences(name, beta) -> None:
    teacher, student, step = logs(1, 3, 5), logs(2, 3, 5), 1e-6
    gradient = logit_gradient(DIVERGENCES[name](teacher.clone(), student, beta)[1], student.clone())
    for column in range(5):
        ends = []
        for sign in (1, -1):
            moved = student.clone()
            moved[:, column] += sign * step
            ends.append(value(name, teacher, moved.log_softmax(-1), beta))
        wanted = (ends[0] - ends[1]) / (2 * step)
        assert torch.allclose(gradient[:, column], wanted, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_a_real_vocabulary_keeps_fp32_accurate(name) -> None:
    teacher, student = logs(1, 4, 49_152), logs(2, 4, 49_152)
    exact = value(name, teacher, student, 0.5)
    single = value(name, teacher.float(), student.float(), 0.5)
    assert torch.allclose(single.double(), exact, rtol=1e-4, atol=1e-6)
