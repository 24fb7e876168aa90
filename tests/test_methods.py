"""Methods as response source × loss: equivalences, coins, masks, alignment of the pair."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from skd.config import Acceptance, Distill, Divergence, MethodSettings, Optimisation, Sampling
from skd.methods import METHODS, Method, loss_sum, respond, response_logits
from skd.sequences import Example, Vocabulary, collate
from tests.tiny import SIZE, VOCABULARY, build, prompts

DISTILL = Distill(Optimisation(steps=10, batch_size=4, learning_rate=0.1), Sampling(0.8))
EXAMPLES = [Example(p, (*r, 1)) for p, r in zip(prompts(8), prompts(8, seed=5), strict=True)]


def answer(method: Method, *, progress: float = 0.0, key=(20, "rollout", 0), examples=EXAMPLES):
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
    never, _ = answer(dataclasses.replace(imit, coin=0.0))
    always, _ = answer(dataclasses.replace(imit, coin=1.0))
    assert torch.equal(never.tokens, answer(METHODS["supervised_kd"])[0].tokens)
    assert torch.equal(always.tokens, answer(METHODS["on_policy_kd"])[0].tokens)


def test_the_coin_is_one_decision_per_prompt_fair_and_repeatable() -> None:
    many = EXAMPLES * 50
    first, rollout = answer(METHODS["imit_kd"], examples=many)
    again, _ = answer(METHODS["imit_kd"], examples=many)
    other, _ = answer(METHODS["imit_kd"], examples=many, key=(21, "rollout", 0))
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
    before, rollout = answer(METHODS["two_stage_kd"], progress=0.49)
    assert rollout is None
    assert torch.equal(before.tokens, collate(EXAMPLES, 0).tokens)
    assert answer(METHODS["two_stage_kd"], progress=0.5)[1] is not None


def test_mixed_skd_keeps_its_marks_in_their_rows() -> None:
    batch, rollout = answer(METHODS["mixed_skd"])
    assert rollout is not None
    assert batch.replaced is not None
    assert int(batch.replaced.sum()) == rollout.replacements > 0
    assert not batch.replaced[~batch.response_mask].any()


def logits(seed: int, rows: int = 6) -> torch.Tensor:
    source = torch.Generator().manual_seed(seed)
    return torch.randn(rows, SIZE, generator=source, dtype=torch.float64)


def loss(method: Method, replaced: torch.Tensor | None = None) -> float:
    targets = torch.arange(6)
    return loss_sum(method, Divergence(), logits(1), logits(2), targets, replaced)[0].item()


def test_the_loss_is_the_weighted_sum_of_its_parts() -> None:
    kd, ce = loss(METHODS["supervised_kd"]), loss(METHODS["sft"])
    assert loss(METHODS["skd_mixed_loss"]) == pytest.approx(0.5 * kd + 0.5 * ce)


def test_cross_entropy_on_replaced_tokens_sees_only_those() -> None:
    marks = torch.tensor([True, False, False, True, False, False])
    method = Method("interleaved", cross_entropy=1.0, label="replaced")
    each = -logits(1).log_softmax(-1)[torch.arange(6), torch.arange(6)]
    assert loss(method, marks) == pytest.approx(each[marks].sum().item())
    assert loss(method, torch.zeros(6, dtype=torch.bool)) == 0.0


def test_the_hard_label_is_the_teachers_argmax() -> None:
    each = -logits(1).log_softmax(-1)[torch.arange(6), logits(2).argmax(-1)]
    assert loss(METHODS["on_policy_hard"]) == pytest.approx(each.sum().item())


def test_padded_embeddings_of_different_sizes_compare_on_the_common_vocabulary() -> None:
    """Qwen2's case: one tokenizer, 152064 and 151936 rows. Padding rows change nothing."""
    batch = collate(EXAMPLES, 0)
    plain, padded = build(seed=2), build(seed=2, vocab_size=SIZE + 12)
    padded.load_state_dict(
        {
            name: torch.cat([value, 50 + torch.rand(12, 16, dtype=torch.float64)])
            if value.shape[0] == SIZE
            else value
            for name, value in plain.state_dict().items()
        }
    )
    student = response_logits(build(seed=1, vocab_size=SIZE + 3), batch, VOCABULARY)
    method = METHODS["supervised_kd"]
    values = [
        loss_sum(
            method,
            Divergence(),
            student,
            response_logits(t, batch, VOCABULARY),
            batch.targets,
            None,
        )[0].item()
        for t in (plain, padded)
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-12)


def test_the_loss_is_fp32_whatever_the_weights() -> None:
    model = build(dtype=torch.bfloat16)
    assert response_logits(model, collate(EXAMPLES, 0), VOCABULARY).dtype == torch.float32


def test_an_unbounded_rule_makes_skd_the_on_policy_method() -> None:
    settings = MethodSettings("skd", acceptance=Acceptance("top_k", SIZE))
    skd, _ = respond(
        METHODS["skd"], settings, DISTILL, build(seed=1), build(seed=2), EXAMPLES,
        Vocabulary(SIZE, (1, 2), 0, (0,)), 10, 0.0, (20, "rollout", 0),
    )  # fmt: skip
    assert torch.equal(skd.tokens, answer(METHODS["on_policy_kd"])[0].tokens)
