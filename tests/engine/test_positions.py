"""How far a decoder is itself: limits with reasons, and checks as long as attention asks for."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    OPTConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from skd.decoding.speculative import speculate
from skd.engine import checking, positions, states
from skd.engine.checking import check_decoder, probe_lengths
from skd.engine.positions import require_budget
from skd.engine.rollout import uniform_noise
from skd.engine.sampling import Interleaving, sample
from skd.engine.sequences import TokenExample, Vocabulary, collate
from skd.engine.settings import Acceptance, Sampling
from skd.engine.states import batch_states
from skd.errors import UserError
from tests.reference import interleaved
from tests.tiny import SIZE, VOCABULARY, build, prompts

STUDENT, TEACHER, RULE = Sampling(0.8), Sampling(0.7), Acceptance("top_k", 4)
BUDGET = 12
DYNAMIC = {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}, "max_position_embeddings": 24}
LONG = {
    "rope_scaling": {"type": "longrope", "short_factor": [1.0] * 4, "long_factor": [4.0] * 4},
    "original_max_position_embeddings": 24,
    "sliding_window": None,
}
ENDLESS = Vocabulary(SIZE, (30,), 0, (0, 30))  # its only end cannot be drawn
SHAPE = {"vocab_size": SIZE, "hidden_size": 16, "initializer_range": 0.6, "eos_token_id": 1}


def gpt_neo(seed: int) -> PreTrainedModel:
    torch.manual_seed(seed)
    layers = {"attention_types": [[["global", "local"], 1]], "num_layers": 2, "num_heads": 2}
    return GPTNeoForCausalLM(GPTNeoConfig(**SHAPE, **layers, window_size=24)).double().eval()


def opt(seed: int, *, positions: int = 32) -> PreTrainedModel:
    torch.manual_seed(seed)
    config = OPTConfig(
        **{k: v for k, v in SHAPE.items() if k != "initializer_range"},
        init_std=0.6,
        ffn_dim=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        word_embed_proj_dim=16,
        max_position_embeddings=positions,
        attn_implementation="eager",
    )
    return MODEL_FOR_CAUSAL_LM_MAPPING[OPTConfig](config).double().eval()


def emitted(student: PreTrainedModel, teacher: PreTrainedModel, rows: Any) -> list[list[int]]:
    """What blocks of 5 emit, which is what Algorithm 1 as it is written emits."""
    noise = uniform_noise(len(rows), BUDGET, torch.Generator().manual_seed(0))
    judge = Interleaving(teacher, RULE, TEACHER)
    rollout = sample(student, rows, ENDLESS, STUDENT, BUDGET, noise, judge, 5)
    made = [list(response) for response in rollout.batch.responses()]
    assert made == [
        interleaved(
            student, teacher, row, ENDLESS, STUDENT, TEACHER, RULE, BUDGET, noise[:, i]
        ).response
        for i, row in enumerate(rows)
    ]
    return made


# --------------------------------------------------------------------- limits
LIMITED = {
    "gpt_neo": (gpt_neo, "local layers count their window of 24"),
    "dynamic": (lambda seed: build("llama", seed, **DYNAMIC), r"\(dynamic\) change for a whole"),
    "longrope": (lambda seed: build("phi3_sliding", seed, **LONG), r"\(longrope\) change"),
}


@pytest.mark.parametrize("name", LIMITED)
def test_a_family_is_exact_up_to_its_limit_and_refused_beyond(name: str) -> None:
    make, reason = LIMITED[name]
    student, teacher = make(1), make(2)
    rows = prompts(5)
    emitted(student, teacher, [*rows, tuple(range(3, 15))])
    with pytest.raises(UserError, match=f"cannot be used exactly at 25 positions.*{reason}"):
        emitted(student, teacher, [*rows, tuple(range(3, 16))])


@pytest.mark.parametrize("name", ["dynamic", "longrope"])
def test_a_batch_past_the_original_length_is_refused_without_a_cache_too(name: str) -> None:
    """Its short rows would turn with its longest one."""
    model = LIMITED[name][0](1)
    short, long = (TokenExample((3, 4), (5,) * n) for n in (6, 30))
    batch_states(model, collate([short], 0))
    with pytest.raises(UserError, match="change for a whole batch"):
        batch_states(model, collate([short, long], 0))


def test_whole_rows_of_gpt_neo_go_past_its_window() -> None:
    model, row = gpt_neo(1), TokenExample((3, 4), tuple(range(3, 31)))
    with torch.no_grad():
        whole = model.transformer(torch.tensor([row.prompt + row.response])).last_hidden_state
        assert torch.allclose(batch_states(model, collate([row], 0)), whole, atol=1e-5)


def test_capped_attention_that_is_computed_uncapped_is_refused() -> None:
    model = build("gemma2", attn_logit_softcapping=1.0)
    check_decoder(model)
    model.set_attn_implementation("sdpa")
    batch = collate([TokenExample((3,), (4, 1))], 0)
    for attempt in (lambda: check_decoder(model), lambda: batch_states(model, batch)):
        with pytest.raises(UserError, match="leaves out the soft-capping"):
            attempt()


@pytest.mark.parametrize("family", ["gpt2", "opt"])
def test_a_block_does_not_read_past_a_table_of_positions(family: str) -> None:
    """20 prompt tokens and 12 new ones fill 32 positions; proposals of γ = 5 would go on."""
    make = opt if family == "opt" else lambda seed: build("gpt2", seed, max_position_embeddings=32)
    student, teacher = make(1), make(2)
    rows = [tuple(range(3, 23)), *prompts(4)]
    made = emitted(student, teacher, rows)
    assert len(made[0]) == BUDGET  # the last position was read
    noise = uniform_noise(len(rows), BUDGET, torch.Generator().manual_seed(0))
    speculate(student, teacher, rows, ENDLESS, STUDENT, BUDGET, noise, block_size=5)
    with pytest.raises(UserError, match="table of 32 positions"):
        emitted(student, teacher, [tuple(range(3, 24))])


def test_budgets_are_compared_with_the_positions_of_a_model() -> None:
    for model in (build(max_position_embeddings=32), opt(1)):
        require_budget(model, 20, 12)
        with pytest.raises(UserError, match="made for 32 positions: max_prompt_tokens=21"):
            require_budget(model, 21, 12)
    require_budget(build(max_position_embeddings=32), 34, 30, start=2)  # each half has its own
    with pytest.raises(UserError, match="max_new_tokens=31 need 33"):
        require_budget(build(max_position_embeddings=32), 34, 31, start=2)
    with pytest.raises(UserError, match="max_prompt_tokens=35 and max_new_tokens=30 need 33"):
        require_budget(build(max_position_embeddings=32), 35, 30, start=2)
    with pytest.raises(UserError, match="longrope"):
        require_budget(build("phi3_sliding", **LONG), 20, 12)


# --------------------------------------------------------------------- checks
def test_memory_that_runs_out_says_nothing_of_a_model(monkeypatch) -> None:
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    monkeypatch.setattr("skd.engine.checking._difference", Mock(side_effect=error))
    with pytest.raises(torch.OutOfMemoryError):
        check_decoder(build())


@pytest.mark.filterwarnings("ignore:`position_ids` have no functionality in BLOOM")
def test_what_sampling_was_not_checked_for_is_refused() -> None:
    model = BloomForCausalLM(BloomConfig(SIZE, hidden_size=16, n_layer=2, n_head=2)).eval()
    with pytest.raises(UserError, match="BloomForCausalLM cannot be sampled by position"):
        sample(model, [(3, 4)], VOCABULARY, STUDENT, 4, torch.zeros(3, 1, 4))


def test_a_check_is_made_once_for_a_model_and_a_reach(monkeypatch) -> None:
    model, made = build("mistral_sliding", sliding_window=40), []
    whole = checking._difference
    monkeypatch.setattr(checking, "_difference", lambda *given: made.append(given) or whole(*given))
    for reach in (20, 20, 40, 60, 50):
        check_decoder(model, reach)
    assert [lengths for _, lengths in made] == [[8, 6], [8, 6, 48]]


@pytest.mark.parametrize(
    ("family", "field"),
    [("mistral_sliding", "sliding_window"), ("llama4_chunked", "attention_chunk_size")],
)
def test_attention_that_changes_behind_the_first_tokens_is_tried_there(family, field) -> None:
    model = build(family, **{field: 16})
    assert probe_lengths(model, 16) == [8, 6]
    assert probe_lengths(model, 17) == [8, 6, 24]
    assert probe_lengths(model, 4096) == [8, 6, 24]
    check_decoder(model, 4096 if family == "llama4_chunked" else 100)


@pytest.mark.parametrize(
    ("family", "field"),
    [("mistral_sliding", "sliding_window"), ("llama4_chunked", "attention_chunk_size")],
)
def test_a_mask_that_forgets_a_window_is_found_out(family, field, monkeypatch) -> None:
    model = build(family, **{field: 16})
    masks = states.attention_mask

    def forgetful(model: PreTrainedModel, positions: torch.Tensor, used: int) -> Any:
        causal = positions[:, None, :, None] >= torch.arange(used)
        causal, mask = states._as_read(causal, model), masks(model, positions, used)
        return dict.fromkeys(mask, causal) if isinstance(mask, dict) else causal

    monkeypatch.setattr(states, "attention_mask", forgetful)
    with pytest.raises(UserError, match="not those of its own pass at 24 tokens"):
        check_decoder(model, 100)


def test_a_window_that_no_table_knows_is_found_out(monkeypatch) -> None:
    """GPT-Neo's, were its limit not known: among longer rows a short one loses all it reads."""
    monkeypatch.setattr(positions, "_LIMITS", ())
    check_decoder(gpt_neo(1), 24)
    with pytest.raises(UserError, match="GPTNeoForCausalLM cannot be sampled by position"):
        check_decoder(gpt_neo(1), 100)
