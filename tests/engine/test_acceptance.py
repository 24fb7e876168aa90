"""Acceptance rules case by case, and schedules."""

from __future__ import annotations

import math

import pytest
import torch

from skd.engine.acceptance import ACCEPT, Proposals, replacement, scheduled
from skd.engine.logits import rank
from skd.engine.settings import Acceptance, Sampling

TEACHER = torch.tensor([0.5, 0.25, 0.15, 0.1], dtype=torch.float64)
STUDENT = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
PLAIN = Sampling()


def every(value: float, count: int = 4) -> torch.Tensor:
    return torch.full((count,), value, dtype=torch.float64)


def proposals(tokens: list[int]) -> Proposals:
    ids = torch.tensor(tokens)
    logits = TEACHER.log().expand(len(ids), -1)
    return Proposals(ids, logits, rank(logits, ids), STUDENT.expand(len(ids), -1))


@pytest.mark.parametrize(
    ("rule", "value", "accepted"),
    [
        ("top_k", 1, [True, False, False, False]),
        ("top_k", 3, [True, True, True, False]),
        ("top_k", 4, [True] * 4),
        ("top_p", 0.01, [True, False, False, False]),  # rank 1 always
        ("top_p", 0.5, [True, False, False, False]),
        ("top_p", 0.51, [True, True, False, False]),
        ("top_p", 1.0, [True] * 4),
        ("min_prob", 0.2, [True, True, False, False]),
        ("min_prob", 0.6, [False] * 4),
    ],
)
def test_rules(rule, value, accepted) -> None:
    got = ACCEPT[rule](proposals([0, 1, 2, 3]), every(value), torch.zeros(4), PLAIN)
    assert got.tolist() == accepted


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_k_tokens_are_accepted_of_many_whose_logits_tie(dtype) -> None:
    """bf16 logits of a real vocabulary tie often: all of them would be some more than K."""
    source = torch.Generator().manual_seed(0)
    logits = torch.randn(3000, generator=source).to(dtype).expand(3000, -1)
    ids = torch.arange(3000)
    rows = Proposals(ids, logits, rank(logits, ids), torch.empty(0))
    got = ACCEPT["top_k"](rows, every(25, 3000), torch.zeros(3000), PLAIN)
    assert int(got.sum()) == 25
    assert logits[0][got].min() >= logits[0][~got].max()


def test_a_least_probability_is_compared_in_single_precision() -> None:
    """bf16 has three digits: p = 0.303 would come out of it as 0.287."""
    logits = torch.full((1, 20), 18.25).index_fill(1, torch.tensor([0]), 20.375).bfloat16()
    exact = float(logits.double().softmax(-1)[0, 0])
    rows = Proposals(torch.tensor([0]), logits, torch.tensor([0]), torch.empty(0))
    for value, accepted in ((exact - 1e-3, True), (exact + 1e-3, False)):
        assert ACCEPT["min_prob"](rows, every(value, 1), torch.zeros(1), PLAIN).item() is accepted


def test_a_nucleus_of_the_whole_mass_holds_every_token_in_single_precision() -> None:
    logits = 4 * torch.randn(3000, generator=torch.Generator().manual_seed(0))
    logits, ids = logits.expand(3000, -1), torch.arange(3000)
    rows = Proposals(ids, logits, rank(logits, ids), torch.empty(0))
    assert ACCEPT["top_p"](rows, every(1.0, 3000), torch.zeros(3000), PLAIN).all()


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_ratio_accepts_with_the_stated_probability(share) -> None:
    points = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    for token in range(4):
        rows, value = proposals([token] * 1000), every(share, 1000)
        got = ACCEPT["ratio"](rows, value, points, PLAIN).double().mean()
        wanted = min(1.0, 1 - share + share * float(TEACHER[token] / STUDENT[token]))
        assert got.item() == pytest.approx(wanted, abs=2e-3)


@pytest.mark.parametrize("rule", ["top_k", "top_p", "min_prob"])
def test_the_teachers_temperature_and_top_p_do_not_move_the_acceptance_set(rule) -> None:
    """The official code warps first, which turns K=25 into a nucleus of one to three."""
    cold = Sampling(temperature=0.05, top_p=0.1)
    value = every({"top_k": 3, "top_p": 0.8, "min_prob": 0.12}[rule])
    rows = proposals([0, 1, 2, 3])
    plain = ACCEPT[rule](rows, value, torch.zeros(4), PLAIN)
    assert torch.equal(plain, ACCEPT[rule](rows, value, torch.zeros(4), cold))


def test_a_replacement_is_the_argmax_or_a_draw_from_the_warped_teacher() -> None:
    points = torch.linspace(0, 0.999, 500, dtype=torch.float64)
    rows = proposals([3] * 500)
    top = replacement(Acceptance(replacement="argmax"), rows, PLAIN, points)
    assert set(top.tolist()) == {0}
    drawn = replacement(Acceptance(), rows, Sampling(top_p=0.7), points)
    assert set(drawn.tolist()) == {0, 1}


def test_a_ratio_replacement_comes_from_the_residual() -> None:
    points = torch.linspace(0, 0.999, 2000, dtype=torch.float64)
    drawn = replacement(Acceptance("ratio", 1.0), proposals([3] * 2000), PLAIN, points)
    seen = torch.bincount(drawn, minlength=4) / 2000
    residual = (TEACHER - STUDENT).clamp_min(0)
    assert torch.allclose(seen.double(), residual / residual.sum(), atol=2e-3)


@pytest.mark.parametrize(
    ("rule", "values"),
    [("top_k", (1, 4)), ("top_p", (0.5, 1.0)), ("min_prob", (0.2, 0.6)), ("ratio", (0.1, 0.9))],
)
def test_every_proposal_is_judged_by_its_own_value(rule, values) -> None:
    rows, points = proposals([0, 1, 2, 3]), torch.full((4,), 0.5, dtype=torch.float64)
    alone = [ACCEPT[rule](rows, every(value), points, PLAIN) for value in values]
    mixed = torch.tensor([values[place % 2] for place in range(4)], dtype=torch.float64)
    wanted = [alone[place % 2][place].item() for place in range(4)]
    assert ACCEPT[rule](rows, mixed, points, PLAIN).tolist() == wanted


PROGRESS = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)


def test_schedules_are_constant_or_linear() -> None:
    assert scheduled(Acceptance(value=25), PROGRESS).tolist() == [25, 25, 25]
    assert scheduled(Acceptance(value=10, final_value=2), PROGRESS).tolist() == [10, 6, 2]
    falling = scheduled(Acceptance("min_prob", 0.3, 0.1), PROGRESS)
    assert falling.tolist() == pytest.approx([0.3, 0.2, 0.1])


def test_the_cosine_of_ca_opd_goes_from_a_half_to_a_quarter_in_nats() -> None:
    """arXiv 2609.02401, eq. 14: the threshold is -log α, half a cosine over the run."""
    progress = torch.linspace(0, 1, 9, dtype=torch.float64)
    rule = Acceptance("min_prob", 0.5, 0.25, "argmax", "cosine")
    first, last = -math.log(0.5), -math.log(0.25)
    wanted = [
        math.exp(-(first + (last - first) / 2 * (1 - math.cos(math.pi * share))))
        for share in progress.tolist()
    ]
    assert scheduled(rule, progress).tolist() == pytest.approx(wanted, rel=1e-12)
    constant = scheduled(Acceptance("min_prob", 0.3, schedule="cosine"), progress)
    assert set(constant.tolist()) == {0.3}
