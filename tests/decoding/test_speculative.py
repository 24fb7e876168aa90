"""Speculative decoding gives the teacher's own output, whatever the draft."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from skd.decoding.speculative import _exponentials, speculate
from skd.engine.logits import distribution
from skd.engine.rollout import Noise, Rows, uniform_noise
from skd.engine.sampling import sample
from skd.engine.settings import Sampling
from tests.tiny import SIZE, VOCABULARY, build, prompts

DRAFT, TEACHER = build(seed=0), build(seed=1)
GREEDY = Sampling(temperature=0.0)
LENGTH = 20


def noise(rows: int, seed: int = 0, length: int = LENGTH) -> torch.Tensor:
    return uniform_noise(rows, length, torch.Generator().manual_seed(seed))


def responses(rollout: object) -> list[list[int]]:
    batch = rollout.batch  # type: ignore[attr-defined]
    return [
        row[start:stop].tolist()
        for row, start, stop in zip(batch.tokens, batch.prompt_lengths, batch.lengths, strict=True)
    ]


def teacher_alone(prompt: tuple[int, ...], uniforms: torch.Tensor, sampling: Sampling) -> list[int]:
    """Plain sampling with Gumbel noise: a whole forward for every token."""
    tokens = list(prompt)
    for step in range(LENGTH):
        with torch.no_grad():
            logits = TEACHER(input_ids=torch.tensor([tokens])).logits[0, -1].clone()
        logits[0] = -torch.inf
        weights = distribution(logits, sampling.temperature, sampling.top_p)
        seed = int(uniforms[Noise.STUDENT, step] * 2**53)
        tokens.append(int((weights / _exponentials(seed, SIZE)).argmax()))
        if tokens[-1] in VOCABULARY.eos:
            break
    return tokens[len(prompt) :]


@settings(max_examples=30)
@given(
    seed=st.integers(0, 999),
    rows=st.integers(1, 6),
    gamma=st.sampled_from([1, 2, 3, 5, 8, "auto"]),
    temperature=st.sampled_from([0.6, 1.0, 1.7]),
    same=st.booleans(),
)
def test_with_shared_noise_the_output_is_the_teachers(
    seed: int, rows: int, gamma: int, temperature: float, same: bool
) -> None:
    asked, uniforms = prompts(rows, seed), noise(rows, seed)
    sampling = Sampling(temperature, 0.95)
    made = speculate(
        TEACHER if same else DRAFT,
        TEACHER,
        asked,
        VOCABULARY,
        sampling,
        LENGTH,
        uniforms,
        "match",
        gamma,  # type: ignore[arg-type]
    )
    wanted = [teacher_alone(p, uniforms[:, i], sampling) for i, p in enumerate(asked)]
    assert responses(made.rollout) == wanted


@pytest.mark.parametrize("rule", ["match", "rejection"])
@pytest.mark.parametrize("gamma", [1, 4, "auto"])
def test_greedy_output_is_the_teachers_greedy_output(rule: str, gamma: int) -> None:
    asked = prompts(16, seed=3)
    plain = sample(TEACHER, asked, VOCABULARY, GREEDY, LENGTH, noise(16))
    made = speculate(
        DRAFT,
        TEACHER,
        asked,
        VOCABULARY,
        GREEDY,
        LENGTH,
        noise(16),
        rule,  # type: ignore[arg-type]
        gamma,  # type: ignore[arg-type]
    )
    assert responses(made.rollout) == responses(plain)
    assert made.rollout.stopped.tolist() == plain.stopped.tolist()


@pytest.mark.parametrize("rule", ["match", "rejection"])
def test_sampled_output_follows_the_teachers_distribution(rule: str) -> None:
    """Pairs of tokens, counted over many rows, against the teacher's own probabilities."""
    draws, prompt = 4000, (3, 4, 5)
    made = speculate(
        DRAFT,
        TEACHER,
        [prompt] * draws,
        VOCABULARY,
        Sampling(0.7),
        2,
        noise(draws, length=2),
        rule,  # type: ignore[arg-type]
        2,
    )
    found = Counter(tuple(r) for r in responses(made.rollout))
    wanted = _enumerate(TEACHER, prompt, 0.7)
    assert sum(wanted.values()) == pytest.approx(1.0)
    distance = 0.5 * sum(abs(found[key] / draws - p) for key, p in wanted.items())
    expected = 0.5 * sum((2 * p * (1 - p) / (torch.pi * draws)) ** 0.5 for p in wanted.values())
    assert distance < 1.5 * expected


def _enumerate(
    model: PreTrainedModel, prompt: tuple[int, ...], temperature: float
) -> dict[tuple[int, ...], float]:
    def after(tokens: tuple[int, ...]) -> torch.Tensor:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([tokens])).logits[0, -1].clone()
        logits[0] = -torch.inf
        return distribution(logits, temperature, 1.0)

    first = after(prompt)
    found = {(t,): float(first[t]) for t in VOCABULARY.eos}
    for token in range(SIZE):
        if token not in (*VOCABULARY.eos, 0):
            second = after((*prompt, token))
            found |= {(token, t): float(first[token] * second[t]) for t in range(SIZE)}
    return found


def test_a_perfect_draft_is_kept_whole_and_brings_a_token_more() -> None:
    asked = prompts(8, seed=1)
    made = speculate(TEACHER, TEACHER, asked, VOCABULARY, Sampling(), LENGTH, noise(8), "match", 4)
    rounds = sum(-(-len(response) // 5) for response in responses(made.rollout))
    assert made.drafts.blocks == rounds
    assert made.acceptance_length == pytest.approx(sum(map(len, responses(made.rollout))) / rounds)


def test_results_do_not_depend_on_the_rows_beside() -> None:
    asked, uniforms = prompts(6, seed=2), noise(6)
    together = speculate(DRAFT, TEACHER, asked, VOCABULARY, Sampling(), LENGTH, uniforms)
    alone = list(
        itertools.chain.from_iterable(
            responses(
                speculate(
                    DRAFT, TEACHER, [p], VOCABULARY, Sampling(), LENGTH, uniforms[:, i : i + 1]
                ).rollout
            )
            for i, p in enumerate(asked)
        )
    )
    assert responses(together.rollout) == alone


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_without_a_draft_the_teacher_says_the_same_alone(temperature) -> None:
    sampling, given_prompts = Sampling(temperature), prompts(5)
    alone, drafted = (
        speculate(draft, TEACHER, given_prompts, VOCABULARY, sampling, LENGTH, noise(5))
        for draft in (None, DRAFT)
    )
    assert responses(alone.rollout) == responses(drafted.rollout)
    assert (alone.drafts.drafted, alone.acceptance_length) == (0, 1.0)
    assert alone.drafts.blocks == alone.rollout.batch.response_tokens


@pytest.mark.parametrize("draft", [None, DRAFT])
def test_tokens_are_told_as_they_become_known_and_each_once(draft) -> None:
    told: list[int] = []
    passes: list[int] = []

    def grown(rows: Rows) -> None:
        passes.append(int(rows.known[0]))
        told.extend(rows.tokens[0, len(prompt) + len(told) : passes[-1]].tolist())

    (prompt,) = prompts(1)
    made = speculate(
        draft, TEACHER, [prompt], VOCABULARY, GREEDY, LENGTH, noise(1), block_size=3, grown=grown
    )
    assert [told] == responses(made.rollout)
    assert passes == sorted(set(passes))
    assert len(passes) == made.drafts.blocks > 1
