"""The block sampler against the token-level reference, and the limits of interleaved sampling."""

from __future__ import annotations

import itertools
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skd.engine.checking import check_decoder
from skd.engine.pace import Pace
from skd.engine.rollout import Noise, Rollout, uniform_noise
from skd.engine.sampling import Interleaving, sample
from skd.engine.sequences import Vocabulary
from skd.engine.settings import Acceptance, Sampling
from skd.engine.states import evaluating
from tests.reference import Reference, interleaved, raw
from tests.tiny import FAMILIES, SIZE, VOCABULARY, build, prompts

LENGTH = 12
STUDENT = Sampling(temperature=0.8, top_p=0.95)
TEACHER = Sampling(temperature=0.7, top_p=0.9)
RULES = [
    Acceptance("top_k", 1),
    Acceptance("top_k", 3),
    Acceptance("top_k", 3, replacement="argmax"),
    Acceptance("top_p", 0.6),
    Acceptance("min_prob", 0.1),
    Acceptance("ratio", 0.7),
]


def noise_for(rows: int, seed: int = 0) -> torch.Tensor:
    return uniform_noise(rows, LENGTH, torch.Generator().manual_seed(seed))


def spread_noise(rows: int, length: int) -> torch.Tensor:
    """Uniforms that fill the unit cube evenly: shares err by about 1/rows, not by its root.

    So few rows do for `near`, which holds them to what many independent ones would keep.
    """
    points = torch.quasirandom.SobolEngine(len(Noise) * length, scramble=True, seed=0)
    drawn = points.draw(rows, dtype=torch.float64)
    return drawn.view(rows, len(Noise), length).transpose(0, 1).contiguous()


def near(share: float, probability: float) -> bool:
    """Within 5 sigma of 40,000 independent draws."""
    sigma = (probability * (1 - probability) / 40_000) ** 0.5
    return abs(share - probability) <= 5 * sigma + 1e-9


def responses(rollout: Rollout) -> list[list[int]]:
    batch = rollout.batch
    spans = zip(batch.prompt_lengths.tolist(), batch.lengths.tolist(), strict=True)
    return [batch.tokens[i, start:stop].tolist() for i, (start, stop) in enumerate(spans)]


def expect(student, teacher, rows, rule, noise) -> list[Reference]:
    return [
        interleaved(student, teacher, row, VOCABULARY, STUDENT, TEACHER, rule, LENGTH, noise[:, i])
        for i, row in enumerate(rows)
    ]


@cache
def expected(rule: Acceptance) -> list[Reference]:
    """The same for every block size: made once."""
    return expect(build(seed=1), build(seed=2), prompts(6), rule, noise_for(6))


@pytest.mark.parametrize("rule", RULES, ids=lambda r: f"{r.rule}-{r.value}-{r.replacement}")
@pytest.mark.parametrize("gamma", [1, 2, 5, 16, "auto"])
def test_blocks_emit_the_tokens_of_the_token_level_reference(rule, gamma) -> None:
    student, teacher = build(seed=1), build(seed=2)
    rows, noise = prompts(6), noise_for(6)
    rollout = sample(
        student,
        rows,
        VOCABULARY,
        STUDENT,
        LENGTH,
        noise,
        Interleaving(teacher, rule, TEACHER),
        gamma,
    )
    wanted = expected(rule)
    assert responses(rollout) == [w.response for w in wanted]
    mask = rollout.batch.response_mask
    assert rollout.batch.replaced is not None
    assert rollout.batch.replaced[mask].tolist() == list(
        itertools.chain.from_iterable(w.replaced for w in wanted)
    )
    assert rollout.ranks[mask].tolist() == list(
        itertools.chain.from_iterable(w.ranks for w in wanted)
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_every_model_family_matches_the_uncached_reference(family) -> None:
    student, teacher = build(family, seed=3), build(family, seed=4)
    rows, noise = prompts(4, seed=1), noise_for(4, seed=1)
    rule = Acceptance("top_k", 4)
    rollout = sample(
        student, rows, VOCABULARY, STUDENT, LENGTH, noise, Interleaving(teacher, rule, TEACHER), 3
    )
    wanted = expect(student, teacher, rows, rule, noise)
    assert responses(rollout) == [w.response for w in wanted]


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10_000),
    gamma=st.integers(1, 9),
    k=st.integers(1, SIZE),
    count=st.integers(1, 6),
    eos=st.sets(st.integers(1, SIZE - 1), min_size=1, max_size=6),
)
def test_the_tokens_do_not_depend_on_blocks_batches_or_order(seed, gamma, k, count, eos) -> None:
    vocabulary = Vocabulary(SIZE, tuple(sorted(eos)), 0, (0,))
    student, teacher = (build(seed=s) for s in (seed, seed + 1))
    rows, noise = prompts(count, seed), noise_for(count, seed)
    judge = Interleaving(teacher, Acceptance("top_k", k), TEACHER)
    together = sample(student, rows, vocabulary, STUDENT, LENGTH, noise, judge, gamma)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    shuffled = sample(
        student, [rows[i] for i in order], vocabulary, STUDENT, LENGTH, noise[:, order], judge, 1
    )
    alone = [
        responses(
            sample(student, [row], vocabulary, STUDENT, LENGTH, noise[:, i : i + 1], judge, 4)
        )[0]
        for i, row in enumerate(rows)
    ]
    assert responses(together) == alone
    assert responses(shuffled) == [alone[i] for i in order]


@pytest.mark.parametrize("gamma", [1, 4])
def test_k_of_the_whole_vocabulary_is_on_policy_sampling(gamma) -> None:
    student, teacher = build(seed=1), build(seed=2)
    rows, noise = prompts(8), noise_for(8)
    judge = Interleaving(teacher, Acceptance("top_k", SIZE), TEACHER)
    skd = sample(student, rows, VOCABULARY, STUDENT, LENGTH, noise, judge, gamma)
    plain = sample(student, rows, VOCABULARY, STUDENT, LENGTH, noise, None, gamma)
    assert responses(skd) == responses(plain)
    assert skd.replacements == 0
    assert skd.accepted == skd.batch.response_tokens


def test_k_of_one_with_argmax_replacement_is_the_teachers_greedy_path() -> None:
    student, teacher = build(seed=1), build(seed=2)
    rows, noise = prompts(8), noise_for(8)
    judge = Interleaving(teacher, Acceptance("top_k", 1, replacement="argmax"), TEACHER)
    skd = sample(student, rows, VOCABULARY, STUDENT, LENGTH, noise, judge, 5)
    greedy = sample(teacher, rows, VOCABULARY, Sampling(temperature=0.0), LENGTH, noise)
    assert responses(skd) == responses(greedy)


def test_every_kept_proposal_is_in_the_teachers_top_k_at_its_own_prefix() -> None:
    student, teacher = build(seed=1), build(seed=2)
    rows, k = prompts(8), 3
    judge = Interleaving(teacher, Acceptance("top_k", k), TEACHER)
    rollout = sample(student, rows, VOCABULARY, STUDENT, LENGTH, noise_for(8), judge, 4)
    assert rollout.batch.replaced is not None
    kept = 0
    for i, row in enumerate(rows):
        for at in range(len(row), int(rollout.batch.lengths[i])):
            if rollout.batch.replaced[i, at]:
                continue
            logits = raw(teacher, rollout.batch.tokens[i : i + 1, :at], VOCABULARY)
            token = rollout.batch.tokens[i, at]
            assert int((logits > logits[token]).sum()) < k
            kept += 1
    assert kept == rollout.accepted > 0


def test_the_emitted_distribution_is_the_enumerated_one() -> None:
    """Two tokens from a five-token model: every sequence has its share."""
    vocabulary = Vocabulary(5, (4,), 0, ())
    shape = {"vocab_size": 5, "pad_token_id": None, "eos_token_id": 4}
    student, teacher = build(seed=1, **shape), build(seed=2, **shape)
    rule, length, draws = Acceptance("top_k", 2), 2, 16_384
    prompt = (1, 3)
    wanted: dict[tuple[int, ...], float] = {}

    def step(prefix: tuple[int, ...]) -> torch.Tensor:
        ids = torch.tensor([prefix])
        own = student(ids).logits[0, -1].div(0.8).softmax(-1)
        logits = teacher(ids).logits[0, -1]
        inside = logits >= logits.topk(2).values[-1]
        return own * inside + (own * ~inside).sum() * logits.div(0.7).softmax(-1)

    with torch.no_grad():
        for first, p in enumerate(step(prompt).tolist()):
            if first == 4:
                wanted[(4,)] = p
                continue
            for second, q in enumerate(step((*prompt, first)).tolist()):
                wanted[(first, second)] = p * q
    judge = Interleaving(teacher, rule, Sampling(0.7))
    noise = spread_noise(draws, length)
    rollout = sample(student, [prompt] * draws, vocabulary, Sampling(0.8), length, noise, judge, 2)
    seen = [tuple(r) for r in responses(rollout)]
    assert sum(wanted.values()) == pytest.approx(1.0)
    for sequence, p in wanted.items():
        assert near(seen.count(sequence) / draws, p), sequence


def test_ratio_rule_emits_the_interpolated_policy() -> None:
    student, teacher = build(seed=1), build(seed=2)
    draws, share = 4096, 0.6
    noise = spread_noise(draws, 1)
    judge = Interleaving(teacher, Acceptance("ratio", share), Sampling(0.7))
    rollout = sample(student, [(5, 7)] * draws, VOCABULARY, Sampling(0.8), 1, noise, judge, 1)
    with torch.no_grad():
        ids = torch.tensor([(5, 7)])
        own = raw(student, ids, VOCABULARY).div(0.8).softmax(-1)
        other = raw(teacher, ids, VOCABULARY).div(0.7).softmax(-1)
    wanted = (1 - share) * own + share * other
    seen = torch.bincount(rollout.batch.targets, minlength=SIZE) / draws
    assert all(itertools.starmap(near, zip(seen.tolist(), wanted.tolist(), strict=True)))


def test_a_truncated_response_gets_no_end_of_sequence() -> None:
    vocabulary = Vocabulary(SIZE, (30,), 0, (0, 30))  # its only end can't be drawn
    rollout = sample(build(seed=1), prompts(3), vocabulary, STUDENT, LENGTH, noise_for(3))
    assert not rollout.stopped.any()
    assert (rollout.batch.lengths - rollout.batch.prompt_lengths).tolist() == [LENGTH] * 3
    assert 30 not in rollout.batch.targets.tolist()


def test_any_of_several_end_ids_stops_and_stays_in_the_response() -> None:
    vocabulary = Vocabulary(SIZE, tuple(range(1, 12)), 0, (0,))
    rollout = sample(build(seed=1), prompts(20), vocabulary, STUDENT, LENGTH, noise_for(20))
    assert rollout.stopped.any()
    for row, stopped in zip(responses(rollout), rollout.stopped.tolist(), strict=True):
        assert (row[-1] in vocabulary.eos) == stopped
        assert not set(row[:-1]) & set(vocabulary.eos)


def test_forbidden_and_padding_ids_are_never_sampled() -> None:
    padded = build(seed=1, vocab_size=SIZE + 9)  # embedding rows beyond the tokenizer
    forbidden = Vocabulary(SIZE, (1,), 0, (0, 3, 4, 5))
    judge = Interleaving(build(seed=2, vocab_size=SIZE + 4), Acceptance("top_k", 2), TEACHER)
    hot = Sampling(temperature=5.0)
    rollout = sample(padded, prompts(30), forbidden, hot, LENGTH, noise_for(30), judge)
    assert set(rollout.batch.targets.tolist()).isdisjoint({0, 3, 4, 5, *range(SIZE, SIZE + 9)})


def test_a_models_own_generation_config_does_not_reach_sampling() -> None:
    model, rows = build(seed=1), prompts(5)
    before = sample(model, rows, VOCABULARY, STUDENT, LENGTH, noise_for(5))
    model.generation_config.update(top_k=1, top_p=0.1, temperature=0.01, repetition_penalty=9.0)
    after = sample(model, rows, VOCABULARY, STUDENT, LENGTH, noise_for(5))
    assert responses(before) == responses(after)


def test_dropout_is_off_while_sampling_and_the_mode_comes_back_even_after_an_error() -> None:
    student = build(seed=1, attention_dropout=0.9)
    still = sample(student, prompts(4), VOCABULARY, STUDENT, LENGTH, noise_for(4))
    student.train()
    again = sample(student, prompts(4), VOCABULARY, STUDENT, LENGTH, noise_for(4))
    assert responses(still) == responses(again)
    assert student.training
    with pytest.raises(RuntimeError, match="boom"), evaluating(student):
        assert not student.training
        raise RuntimeError("boom")
    assert student.training


def test_sampling_keeps_its_cache_with_gradient_checkpointing_on() -> None:
    student, calls = build(seed=1), []
    check_decoder(student)  # which reads prompts of its own
    student.gradient_checkpointing_enable({"use_reentrant": False})
    student.train()
    student.get_decoder().register_forward_pre_hook(
        lambda _, args, kwargs: calls.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    sample(student, prompts(3), VOCABULARY, STUDENT, LENGTH, noise_for(3), block_size=4)
    assert set(calls[1:]) == {0, 1}  # after the prompts one token per pass; 0: the head alone


def test_sampling_leaves_no_gradients() -> None:
    rollout = sample(build(seed=1), prompts(2), VOCABULARY, STUDENT, LENGTH, noise_for(2))
    assert not rollout.batch.tokens.requires_grad
    assert all(p.grad is None for p in build(seed=1).parameters())


def test_finished_rows_do_not_count_as_work() -> None:
    vocabulary = Vocabulary(SIZE, tuple(range(1, 29)), 0, (0,))  # nearly every token ends a row
    judge = Interleaving(build(seed=2), Acceptance("top_k", SIZE), TEACHER)
    rollout = sample(
        build(seed=1), prompts(16), vocabulary, STUDENT, LENGTH, noise_for(16), judge, 1
    )
    assert rollout.cost.student_tokens == rollout.batch.response_tokens
    # As everywhere, what goes through the teacher counts with its prompts.
    assert rollout.cost.teacher_tokens == int(rollout.batch.lengths.sum())
    blocks = int((rollout.batch.lengths - rollout.batch.prompt_lengths).max())
    assert rollout.cost.teacher_passes == blocks + 1


@pytest.mark.parametrize(("share", "size"), [(0.0, 1), (0.5, 2), (0.9, 5), (1.0, 8)])
def test_blocks_grow_with_acceptance(share, size) -> None:
    pace = Pace("auto", [build(num_hidden_layers=2), build(num_hidden_layers=4)])
    for _ in range(60):
        pace.learn(kept=round(100 * share), replaced=100 - round(100 * share))
    assert pace.block_size == size


def test_a_fixed_block_size_stays() -> None:
    pace = Pace(3, [build(), build()])
    pace.learn(kept=0, replaced=100)
    assert pace.block_size == pace.largest == 3


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(ValueError, match="prompt is empty"):
        sample(build(), [()], VOCABULARY, STUDENT, LENGTH, noise_for(1))
