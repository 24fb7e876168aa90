"""Where responses come from: equivalences, coins, marks, and the teacher's states at them."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest
import torch

from skd.engine.pair import Pair
from skd.engine.sequences import TokenExample, collate
from skd.engine.settings import Acceptance, Sampling
from skd.engine.states import batch_states
from skd.training.decoding import teacher_responses
from skd.training.methods import METHODS, Method, ResponseSource
from skd.training.responses import Responder, Responses
from skd.training.rows import plan_rows
from skd.training.settings import Distill, Optimisation
from tests.tiny import SIZE, VOCABULARY, build, prompts

DISTILL = Distill(Optimisation(steps=10, batch_size=4, learning_rate=0.1), Sampling(0.8))
PROMPTS = prompts(8)
EXAMPLES = [TokenExample(p, (*r, 1)) for p, r in zip(PROMPTS, prompts(8, seed=5), strict=True)]
TAUGHT = [TokenExample(p, (*r, 1)) for p, r in zip(PROMPTS, prompts(8, seed=6), strict=True)]
KEY = (20, "rollout", 0)


def answer(
    method: Method, *, progress: float = 0.0, key=KEY, copies: int = 1, k: float = 3
) -> Responses:
    known = {
        ResponseSource.GROUND_TRUTH: EXAMPLES * copies,
        ResponseSource.TEACHER: TAUGHT * copies,
    }
    pair = Pair(build(seed=1), build(seed=2), VOCABULARY)
    responder = Responder(method, Acceptance("top_k", k), DISTILL, pair, known, 10)
    count = 8 * copies
    return responder.respond(range(count), [progress] * count, key)


def texts(responses: Responses) -> list[tuple[int, ...]]:
    """Each row's prompt and response."""
    batch = responses.batch
    return [
        tuple(row[:stop].tolist()) for row, stop in zip(batch.tokens, batch.lengths, strict=True)
    ]


def whole(examples: list[TokenExample]) -> list[tuple[int, ...]]:
    return [example.prompt + example.response for example in examples]


def test_the_table_is_the_one_of_the_specification() -> None:
    assert {name: (m.response, m.coin, m.start, m.otherwise) for name, m in METHODS.items()} == {
        "sft": ("ground_truth", 1.0, 0.0, "ground_truth"),
        "seq_kd": ("teacher", 1.0, 0.0, "ground_truth"),
        "supervised_kd": ("ground_truth", 1.0, 0.0, "ground_truth"),
        "on_policy_kd": ("student", 1.0, 0.0, "ground_truth"),
        "on_policy_hard": ("student", 1.0, 0.0, "ground_truth"),
        "imit_kd": ("student", 0.5, 0.0, "ground_truth"),
        "skd": ("interleaved", 1.0, 0.0, "ground_truth"),
        "skd_mixed_loss": ("interleaved", 1.0, 0.0, "ground_truth"),
        "skd_kept": ("interleaved", 1.0, 0.0, "ground_truth"),
        "ca_opd": ("interleaved", 1.0, 0.0, "ground_truth"),
        "skd_with_teacher": ("interleaved", 0.5, 0.0, "teacher"),
        "skd_and_teacher": ("interleaved", 1.0, 0.0, "teacher"),
        "student_and_teacher": ("student", 1.0, 0.0, "teacher"),
        "mixed_skd": ("interleaved", 0.5, 0.0, "ground_truth"),
        "two_stage_kd": ("student", 1.0, 0.5, "ground_truth"),
        "distillm2": ("student", 1.0, 0.0, "teacher"),
        "seq_kd_then_skd": ("interleaved", 1.0, 0.5, "teacher"),
    }
    assert {name for name, method in METHODS.items() if not method.baseline} == {
        "skd", "skd_mixed_loss", "skd_kept", "ca_opd", "skd_with_teacher", "skd_and_teacher",
        "mixed_skd", "seq_kd_then_skd",
    }  # fmt: skip


def test_the_table_needs_no_torch() -> None:
    code = "import sys; import skd.training.methods; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_coin_of_0_is_supervised_and_of_1_is_on_policy() -> None:
    imit = METHODS["imit_kd"]
    never = answer(dataclasses.replace(imit, coin=0.0)).batch
    always = answer(dataclasses.replace(imit, coin=1.0)).batch
    assert torch.equal(never.tokens, answer(METHODS["supervised_kd"]).batch.tokens)
    assert torch.equal(always.tokens, answer(METHODS["on_policy_kd"]).batch.tokens)


def test_the_coin_is_one_decision_per_prompt_fair_and_repeatable() -> None:
    first = answer(METHODS["imit_kd"], copies=50)
    again = answer(METHODS["imit_kd"], copies=50)
    other = answer(METHODS["imit_kd"], copies=50, key=(21, "rollout", 0))
    assert texts(first) == texts(again) != texts(other)
    (rollout,) = first.rollouts
    sampled, count = len(rollout.batch.tokens), len(first.batch.tokens)
    assert abs(sampled / count - 0.5) < 5 * 0.5 / count**0.5
    truth = set(whole(EXAMPLES))
    assert sum(row not in truth for row in texts(first)) <= sampled


@pytest.mark.parametrize("first", ResponseSource)
@pytest.mark.parametrize("second", ResponseSource)
def test_a_coin_falls_between_any_two_sources(first, second) -> None:
    """Each row is what its source alone would have given."""
    method = dataclasses.replace(METHODS["skd"], response=first, otherwise=second, coin=0.5)
    alone = {
        source: texts(answer(dataclasses.replace(METHODS["skd"], response=source)))
        for source in (first, second)
    }
    planned = plan_rows(method, range(8), [0.0] * 8, KEY)
    assert {row.otherwise for row in planned} == {False, True}
    wanted = [alone[row.source][place] for place, row in enumerate(planned)]
    assert texts(answer(method)) == wanted


def test_two_stages_change_their_source_at_half() -> None:
    before = answer(METHODS["two_stage_kd"], progress=0.49)
    assert before.rollouts == ()
    assert torch.equal(before.batch.tokens, collate(EXAMPLES, 0).tokens)
    assert len(answer(METHODS["two_stage_kd"], progress=0.5).rollouts) == 1
    then = METHODS["seq_kd_then_skd"]
    first, second = answer(then, progress=0.49), answer(then, progress=0.5)
    assert texts(first) == whole(TAUGHT)
    assert (first.teacher_passes, first.batch.teacher_states) == (0, None)
    assert texts(second) == texts(answer(METHODS["skd"], progress=0.5))


def test_a_paired_method_has_both_responses_of_every_prompt_side_by_side() -> None:
    responses = answer(METHODS["distillm2"])
    rows = texts(responses)
    assert rows[1::2] == whole(TAUGHT)
    assert responses.batch.otherwise is not None
    assert responses.batch.otherwise.tolist() == [False, True] * 8
    (rollout,) = responses.rollouts
    assert [row[: len(p)] for row, p in zip(rows[::2], PROMPTS, strict=True)] == PROMPTS
    assert len(rollout.batch.tokens) == 8


def test_mixed_skd_keeps_its_marks_in_their_rows() -> None:
    responses = answer(METHODS["mixed_skd"])
    batch, (rollout,) = responses.batch, responses.rollouts
    assert batch.replaced is not None
    assert int(batch.replaced.sum()) == rollout.replacements > 0
    assert not batch.replaced[~batch.response_mask].any()


@pytest.mark.parametrize("name", [n for n, m in METHODS.items() if m.needs_teacher])
def test_the_teachers_states_are_those_of_a_fresh_forward(name) -> None:
    """Kept from verification, made for other rows, or both in one batch (`mixed_skd`).

    Norms and eager attention's softmax compute in fp32, in sums whose order follows the shape.
    """
    responses = answer(METHODS[name], progress=0.6)
    batch, teacher = responses.batch, build(seed=2)
    assert batch.teacher_states is not None
    wanted = batch_states(teacher, batch)[batch.predictors]
    assert torch.allclose(batch.teacher_states[batch.predictors], wanted, atol=1e-5)
    assert responses.teacher_passes > 0


@pytest.mark.parametrize("family", ["llama", "opt_projected"])
def test_a_teacher_handed_over_in_training_says_what_it_says_in_use(family) -> None:
    """No dropout, in rows that it verifies and in rows that it only reads; its mode stays."""
    teacher = build(family, seed=2, attention_dropout=0.9)
    method = METHODS["mixed_skd"]

    def taught() -> torch.Tensor:
        pair = Pair(build(seed=1), teacher, VOCABULARY)
        known = {ResponseSource.GROUND_TRUTH: EXAMPLES}
        responder = Responder(method, Acceptance("top_k", 3), DISTILL, pair, known, 10)
        batch = responder.respond(range(8), [0.6] * 8, KEY).batch
        assert batch.teacher_states is not None
        return batch.teacher_states[batch.predictors]

    wanted = taught()
    teacher.train()
    assert torch.equal(taught(), wanted)
    assert teacher.training


@pytest.mark.parametrize("name", [n for n, m in METHODS.items() if not m.needs_teacher])
def test_a_method_without_a_teacher_asks_it_nothing(name) -> None:
    responses = answer(METHODS[name])
    assert responses.batch.teacher_states is None
    assert (responses.teacher_passes, responses.teacher_tokens) == (0, 0)


def test_verified_rows_cost_no_second_teacher_forward() -> None:
    responses = answer(METHODS["skd"])
    (rollout,) = responses.rollouts
    assert responses.teacher_passes == rollout.cost.teacher_passes
    assert responses.teacher_tokens == rollout.cost.teacher_tokens


def test_an_unbounded_rule_makes_skd_the_on_policy_method() -> None:
    assert texts(answer(METHODS["skd"], k=SIZE)) == texts(answer(METHODS["on_policy_kd"]))


def test_the_teachers_own_responses_are_made_in_the_examples_order() -> None:
    made = teacher_responses(build(seed=2), EXAMPLES, VOCABULARY, 10, 3, Sampling(0.0), 20)
    alone = [
        teacher_responses(build(seed=2), [example], VOCABULARY, 10, 3, Sampling(0.0), 20)[0]
        for example in EXAMPLES
    ]
    assert made == alone
    assert [example.prompt for example in made] == PROMPTS
