"""Where responses come from: equivalences, coins, marks, and the teacher's states at them."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from skd.engine.sequences import TokenExample, Vocabulary, collate
from skd.engine.settings import Acceptance, Sampling
from skd.engine.states import batch_states
from skd.training.methods import METHODS, Method
from skd.training.responses import Responses, respond
from skd.training.settings import Distill, MethodSettings, Optimisation
from tests.tiny import SIZE, VOCABULARY, build, prompts

DISTILL = Distill(Optimisation(steps=10, batch_size=4, learning_rate=0.1), Sampling(0.8))
EXAMPLES = [TokenExample(p, (*r, 1)) for p, r in zip(prompts(8), prompts(8, seed=5), strict=True)]


def answer(
    method: Method, *, progress: float = 0.0, key=(20, "rollout", 0), examples=EXAMPLES
) -> Responses:
    settings = MethodSettings("skd", acceptance=Acceptance("top_k", 3))
    return respond(
        method, settings, DISTILL, build(seed=1), build(seed=2), examples, VOCABULARY, 10,
        progress, key,
    )  # fmt: skip


def test_the_table_is_the_one_of_the_specification() -> None:
    assert {name: (m.response, m.coin, m.start) for name, m in METHODS.items()} == {
        "sft": ("ground_truth", 1.0, 0.0),
        "seq_kd": ("teacher", 1.0, 0.0),
        "supervised_kd": ("ground_truth", 1.0, 0.0),
        "on_policy_kd": ("student", 1.0, 0.0),
        "on_policy_hard": ("student", 1.0, 0.0),
        "imit_kd": ("student", 0.5, 0.0),
        "skd": ("interleaved", 1.0, 0.0),
        "skd_mixed_loss": ("interleaved", 1.0, 0.0),
        "mixed_skd": ("interleaved", 0.5, 0.0),
        "two_stage_kd": ("student", 1.0, 0.5),
    }


def test_a_coin_of_0_is_supervised_and_of_1_is_on_policy() -> None:
    imit = METHODS["imit_kd"]
    never = answer(dataclasses.replace(imit, coin=0.0)).batch
    always = answer(dataclasses.replace(imit, coin=1.0)).batch
    assert torch.equal(never.tokens, answer(METHODS["supervised_kd"]).batch.tokens)
    assert torch.equal(always.tokens, answer(METHODS["on_policy_kd"]).batch.tokens)


def test_the_coin_is_one_decision_per_prompt_fair_and_repeatable() -> None:
    many = EXAMPLES * 50
    made = answer(METHODS["imit_kd"], examples=many)
    first, rollout = made.batch, made.rollout
    again = answer(METHODS["imit_kd"], examples=many).batch
    other = answer(METHODS["imit_kd"], examples=many, key=(21, "rollout", 0)).batch
    assert torch.equal(first.tokens, again.tokens)
    assert first.tokens.shape != other.tokens.shape or not torch.equal(first.tokens, other.tokens)
    assert rollout is not None
    share = len(rollout.batch.tokens) / len(many)
    assert abs(share - 0.5) < 5 * 0.5 / len(many) ** 0.5
    truth = {e.prompt + e.response for e in EXAMPLES}
    rows = [
        tuple(row[:stop].tolist()) for row, stop in zip(first.tokens, first.lengths, strict=True)
    ]
    assert sum(row not in truth for row in rows) <= len(rollout.batch.tokens)


def test_two_stage_changes_from_ground_truth_to_samples_at_half() -> None:
    before = answer(METHODS["two_stage_kd"], progress=0.49)
    assert before.rollout is None
    assert torch.equal(before.batch.tokens, collate(EXAMPLES, 0).tokens)
    assert answer(METHODS["two_stage_kd"], progress=0.5).rollout is not None


def test_mixed_skd_keeps_its_marks_in_their_rows() -> None:
    made = answer(METHODS["mixed_skd"])
    batch, rollout = made.batch, made.rollout
    assert rollout is not None
    assert batch.replaced is not None
    assert int(batch.replaced.sum()) == rollout.replacements > 0
    assert not batch.replaced[~batch.response_mask].any()


@pytest.mark.parametrize("name", [n for n, m in METHODS.items() if m.needs_teacher])
def test_the_teachers_states_are_those_of_a_fresh_forward(name) -> None:
    """Kept from verification, made for other rows, or both in one batch (`mixed_skd`).

    Norms and eager attention's softmax compute in fp32, in sums whose order follows the shape.
    """
    made = answer(METHODS[name], progress=0.6)
    batch, teacher = made.batch, build(seed=2)
    assert batch.teacher_states is not None
    wanted = batch_states(teacher, batch)[batch.predictors]
    assert torch.allclose(batch.teacher_states[batch.predictors], wanted, atol=1e-5)
    assert made.teacher_passes > 0


@pytest.mark.parametrize("name", [n for n, m in METHODS.items() if not m.needs_teacher])
def test_a_method_without_a_teacher_asks_it_nothing(name) -> None:
    made = answer(METHODS[name])
    assert (made.batch.teacher_states, made.teacher_passes, made.teacher_tokens) == (None, 0, 0)


def test_verified_rows_cost_no_second_teacher_forward() -> None:
    made = answer(METHODS["skd"])
    assert made.rollout is not None
    assert made.teacher_passes == made.rollout.cost.teacher_passes
    assert made.teacher_tokens == made.rollout.cost.teacher_tokens


def test_an_unbounded_rule_makes_skd_the_on_policy_method() -> None:
    settings = MethodSettings("skd", acceptance=Acceptance("top_k", SIZE))
    skd = respond(
        METHODS["skd"], settings, DISTILL, build(seed=1), build(seed=2), EXAMPLES,
        Vocabulary(SIZE, (1, 2), 0, (0,)), 10, 0.0, (20, "rollout", 0),
    ).batch  # fmt: skip
    assert torch.equal(skd.tokens, answer(METHODS["on_policy_kd"]).batch.tokens)
