"""The worth of a draft: ways of decoding side by side, transformers' assisted one among them."""

from __future__ import annotations

import pytest
import torch

from skd.decoding import drafting
from skd.decoding.assisted import AssistError, assist
from skd.decoding.drafting import DRAFTED, GREEDY, PLAIN, draft_worth
from skd.engine.rollout import uniform_noise
from skd.engine.sampling import sample
from skd.engine.settings import Sampling
from skd.errors import UserError
from tests.tiny import SIZE, VOCABULARY, build, prompts

DRAFT, TEACHER = build(seed=0), build(seed=1)
LENGTH = 12
ASKED = prompts(4, seed=3)
NOISE = uniform_noise(4, LENGTH, torch.Generator().manual_seed(0))


def teacher_alone(teacher) -> list[list[int]]:
    batch = sample(teacher, ASKED, VOCABULARY, GREEDY, LENGTH, NOISE).batch
    return [
        row[start:stop].tolist()
        for row, start, stop in zip(batch.tokens, batch.prompt_lengths, batch.lengths, strict=True)
    ]


# ------------------------------------------------------------------- assisted
@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
@pytest.mark.parametrize("rows", [SIZE, SIZE + 5])
def test_greedy_assisted_generation_gives_the_teachers_output(family, rows) -> None:
    """Padding rows and forbidden tokens are never drawn, by either model."""
    draft, teacher = (build(family, seed=s, vocab_size=rows) for s in (0, 1))
    made = [assist(draft, teacher, p, VOCABULARY, GREEDY, LENGTH) for p in ASKED]
    assert made == teacher_alone(teacher)


def test_a_models_own_generation_settings_have_no_say_and_stay() -> None:
    draft, teacher = build(seed=0), build(seed=1)
    for model in (draft, teacher):
        model.generation_config.repetition_penalty = 5.0
        model.generation_config.num_assistant_tokens = 3
        model.generation_config.eos_token_id = 9
    kept = [model.generation_config.to_dict() for model in (draft, teacher)]
    made = [assist(draft, teacher, p, VOCABULARY, GREEDY, LENGTH) for p in ASKED]
    assert made == teacher_alone(TEACHER)
    assert [model.generation_config.to_dict() for model in (draft, teacher)] == kept


def test_sampled_assisted_generation_stays_inside_the_vocabulary() -> None:
    torch.manual_seed(0)
    made = [assist(DRAFT, TEACHER, p, VOCABULARY, Sampling(0.8, 0.9), LENGTH) for p in ASKED]
    assert all(0 < token < SIZE for response in made for token in response)


def test_the_library_refuses_embeddings_of_different_sizes() -> None:
    with pytest.raises(AssistError, match="different tokenizers"):
        assist(DRAFT, build(seed=1, vocab_size=SIZE + 5), ASKED[0], VOCABULARY, GREEDY, LENGTH)


# -------------------------------------------------------------------- drafting
def test_every_way_is_timed_and_assisted_outputs_are_counted() -> None:
    made = draft_worth(DRAFT, TEACHER, ASKED, VOCABULARY, LENGTH, NOISE)
    assert list(made) == ["prompts", *PLAIN, *DRAFTED, "assisted"]
    assert made["prompts"] == made["assisted"]["equal"] == len(ASKED)
    assert made["assisted"]["reason"] is None
    ways = [made[name] for name in made if name != "prompts"]
    assert all(way["tokens_per_cpu_second"] > 0 for way in ways)
    for name in DRAFTED:
        assert 0 <= made[name]["accepted"] <= 100
        assert made[name]["acceptance_length"] >= 1


def test_a_refused_way_has_a_reason_and_the_others_their_numbers() -> None:
    padded = build(seed=1, vocab_size=SIZE + 5)
    made = draft_worth(DRAFT, padded, ASKED[:2], VOCABULARY, LENGTH, NOISE[:, :2])
    assert made["assisted"].pop("reason").startswith("The main and assistant models have different")
    assert made["assisted"] == {"tokens_per_cpu_second": None, "equal": None}
    assert made["rejection"]["tokens_per_cpu_second"] > 0


def test_a_changed_greedy_output_is_an_error(monkeypatch) -> None:
    def changed(student, teacher, *given):  # a decoder whose output is the draft's own
        return real(student, student, *given)

    real = drafting.speculate
    monkeypatch.setattr(drafting, "speculate", changed)
    with pytest.raises(UserError, match=r"changed the teacher's greedy output on \d of 4 prompts"):
        draft_worth(DRAFT, TEACHER, ASKED, VOCABULARY, LENGTH, NOISE)
