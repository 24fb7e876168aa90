"""The worth of a draft: ways of decoding side by side, transformers' assisted one among them."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest
import torch

from skd.decoding import drafting
from skd.decoding.assisted import AssistError, assist
from skd.decoding.drafting import ASSISTED, DRAFTED, GREEDY, PLAIN, draft_worth
from skd.engine.rollout import uniform_noise
from skd.engine.sampling import sample
from skd.engine.settings import Sampling
from skd.errors import UserError
from skd.results.analyses import DecodingSpeed
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
def a_second_a_response(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock goes on by one second between two readings, however long a response takes."""
    readings = itertools.count()
    clock = SimpleNamespace(process_time=lambda: float(next(readings)))
    monkeypatch.setattr(drafting, "time", clock)


def test_every_way_is_timed_and_assisted_outputs_are_counted(monkeypatch) -> None:
    a_second_a_response(monkeypatch)
    made = draft_worth(DRAFT, TEACHER, ASKED, VOCABULARY, LENGTH, NOISE)
    assert list(made.ways) == [*PLAIN, *DRAFTED, ASSISTED]
    assert made.prompts == len(ASKED)
    assert made.assisted_reason is None
    equal = {name: way.equal for name, way in made.ways.items() if way.equal is not None}
    assert equal == {"greedy": len(ASKED), ASSISTED: len(ASKED)}
    tokens = sum(len(response) for response in teacher_alone(TEACHER))
    for name in ("plain_greedy", "greedy", ASSISTED):  # all give the teacher's greedy output
        assert made.ways[name].tokens_per_cpu_second == tokens / len(ASKED)
    for way in made.ways.values():
        assert way.tokens_per_cpu_second is not None
        assert 1 <= way.tokens_per_cpu_second <= LENGTH
    for name in (*PLAIN, ASSISTED):
        assert (made.ways[name].accepted, made.ways[name].acceptance_length) == (None, None)
    for name in DRAFTED:
        accepted, length = made.ways[name].accepted, made.ways[name].acceptance_length
        assert accepted is not None
        assert length is not None
        assert 0 <= accepted <= 100
        assert length >= 1


def test_a_refused_way_has_a_reason_and_the_others_their_numbers(monkeypatch) -> None:
    a_second_a_response(monkeypatch)
    padded = build(seed=1, vocab_size=SIZE + 5)
    made = draft_worth(DRAFT, padded, ASKED[:2], VOCABULARY, LENGTH, NOISE[:, :2])
    assert made.assisted_reason is not None
    assert made.assisted_reason.startswith("The main and assistant models have different")
    assert made.ways[ASSISTED] == DecodingSpeed(None)
    assert made.ways["rejection"].tokens_per_cpu_second is not None


def test_a_changed_greedy_output_is_an_error(monkeypatch) -> None:
    def changed(student, teacher, *given):  # a decoder whose output is the draft's own
        return real(student, student, *given)

    real = drafting.speculate
    monkeypatch.setattr(drafting, "speculate", changed)
    with pytest.raises(UserError, match=r"changed the teacher's greedy output on \d of 4 prompts"):
        draft_worth(DRAFT, TEACHER, ASKED, VOCABULARY, LENGTH, NOISE)
    # Near ties of half precision may fall otherwise in a pass of more tokens: counted, no defect.
    half = build(seed=1).bfloat16()
    made = draft_worth(DRAFT, half, ASKED, VOCABULARY, LENGTH, NOISE)
    assert made.ways["greedy"].equal is not None
    assert made.ways["greedy"].equal < made.prompts
