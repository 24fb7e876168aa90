"""Encoder–decoders in the same engine: Algorithm 1 token for token, the same states and loss."""

from __future__ import annotations

import dataclasses
import itertools
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import FSMTConfig, FSMTForConditionalGeneration, PreTrainedModel

from skd.decoding.assisted import assist
from skd.decoding.speculative import speculate
from skd.engine.checking import check_decoder
from skd.engine.generation import generate
from skd.engine.pace import Pace
from skd.engine.rollout import Rollout, uniform_noise
from skd.engine.sampling import Interleaving, sample
from skd.engine.sequences import TokenExample, Vocabulary, collate
from skd.engine.settings import Acceptance, Sampling
from skd.engine.sources import decoder_start
from skd.engine.states import batch_states, head
from skd.errors import UserError
from skd.training.chunks import Predictions
from skd.training.losses import Terms, response_loss
from skd.training.methods import METHODS
from skd.training.settings import Divergence
from skd.training.teacher_cache import keep
from tests.reference import Reference, interleaved, written_loss
from tests.tiny import ENCODER_DECODERS, SIZE, VOCABULARY, build, prompts

LENGTH = 10
STUDENT = Sampling(temperature=0.8, top_p=0.95)
TEACHER = Sampling(temperature=0.7, top_p=0.9)
GREEDY = Sampling(temperature=0.0)
RULES = [
    Acceptance("top_k", 4),
    Acceptance("top_k", 3, replacement="argmax"),
    Acceptance("top_p", 0.6),
    Acceptance("min_prob", 0.1),
    Acceptance("ratio", 0.7),
]
FAMILIES = list(ENCODER_DECODERS)
END = 1


@cache
def model(family: str, seed: int) -> PreTrainedModel:
    return build(family, seed=seed)


def rows_of(family: str, count: int, seed: int = 0) -> list[tuple[int, ...]]:
    """Sources of unlike lengths with what the family's decoder begins with."""
    start = decoder_start(model(family, 1))
    return [(*source, END, *start) for source in prompts(count, seed)]


def noise_for(rows: int, seed: int = 0) -> torch.Tensor:
    return uniform_noise(rows, LENGTH, torch.Generator().manual_seed(seed))


def rollout_of(family: str, rule: Acceptance, gamma: int | str, count: int = 5) -> Rollout:
    return sample(
        model(family, 1),
        rows_of(family, count),
        VOCABULARY,
        STUDENT,
        LENGTH,
        noise_for(count),
        Interleaving(model(family, 2), rule, TEACHER),
        gamma,
    )


def responses(rollout: Rollout) -> list[list[int]]:
    return [list(response) for response in rollout.batch.responses()]


def examples(family: str) -> list[TokenExample]:
    made = zip(rows_of(family, 6), prompts(6, seed=5), strict=True)
    return [TokenExample(prompt, (*response, END)) for prompt, response in made]


def own_logits(one: PreTrainedModel, batch) -> torch.Tensor:
    """[N, V] by the model's own forward, a row at a time and without padding."""
    found = []
    for row, begin, end in zip(batch.tokens, batch.prompt_lengths, batch.lengths, strict=True):
        count = len(decoder_start(one))
        source = row[None, : begin - count]
        decoded = row[None, begin - count : end]
        logits = one(input_ids=source, decoder_input_ids=decoded, use_cache=False).logits[0]
        found.append(logits[count - 1 : -1])
    return torch.cat(found)


# ------------------------------------------------------------------- the algorithm
def references(family, rule) -> list[Reference]:
    """Algorithm 1 token by token, row by row."""
    teacher, student = model(family, 2), model(family, 1)
    start, noise = len(decoder_start(student)), noise_for(5)
    settings = (VOCABULARY, STUDENT, TEACHER, rule, LENGTH)
    return [
        interleaved(student, teacher, row, *settings, noise[:, i], start)
        for i, row in enumerate(rows_of(family, 5))
    ]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("gamma", [1, 3])
def test_blocks_emit_the_tokens_of_the_token_level_reference(family, gamma) -> None:
    rule = RULES[0]
    wanted = references(family, rule)
    rollout = rollout_of(family, rule, gamma)
    mask = rollout.batch.response_mask
    assert rollout.batch.replaced is not None
    assert responses(rollout) == [w.response for w in wanted]
    replaced = list(itertools.chain.from_iterable(w.replaced for w in wanted))
    assert rollout.batch.replaced[mask].tolist() == replaced
    assert any(replaced)
    assert not all(replaced)
    assert rollout.ranks[mask].tolist() == list(
        itertools.chain.from_iterable(w.ranks for w in wanted)
    )


@pytest.mark.parametrize("rule", RULES, ids=lambda r: f"{r.rule}-{r.replacement}")
def test_every_rule_emits_the_tokens_of_the_reference(rule) -> None:
    wanted = [one.response for one in references("m2m100", rule)]
    assert responses(rollout_of("m2m100", rule, 4)) == wanted


@settings(max_examples=20)
@given(
    family=st.sampled_from(["t5", "m2m100", "bart", "marian"]),
    seed=st.integers(0, 10_000),
    gamma=st.integers(1, 9),
    k=st.integers(1, SIZE),
    count=st.integers(1, 6),
    eos=st.sets(st.integers(1, SIZE - 1), min_size=1, max_size=6),
)
def test_the_tokens_do_not_depend_on_blocks_batches_or_order(
    family, seed, gamma, k, count, eos
) -> None:
    """Rows end at unlike steps, so that finished ones leave with what was kept of their sources."""
    vocabulary = Vocabulary(SIZE, tuple(sorted(eos)), 0, (0,))
    rows, noise = rows_of(family, count, seed), noise_for(count, seed)
    judge = Interleaving(model(family, 2), Acceptance("top_k", k), TEACHER)

    def made(order: list[int], block: int) -> list[list[int]]:
        asked = [rows[i] for i in order]
        return responses(
            sample(
                model(family, 1), asked, vocabulary, STUDENT, LENGTH, noise[:, order], judge, block
            )
        )

    alone = [made([i], 4)[0] for i in range(count)]
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    assert made(list(range(count)), gamma) == alone
    assert made(order, 1) == [alone[i] for i in order]


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_responses_are_those_of_the_librarys_own_generate(family) -> None:
    one, rows = model(family, 2), rows_of(family, 4, seed=3)
    start = decoder_start(one)
    made = generate(one, rows, VOCABULARY, LENGTH, batch_size=3).responses
    for row, response in zip(rows, made, strict=True):
        theirs = one.generate(
            torch.tensor([row[: -len(start)]]),
            decoder_input_ids=torch.tensor([start]),
            max_new_tokens=LENGTH,
            num_beams=1,
            do_sample=False,
            eos_token_id=list(VOCABULARY.eos),
            forced_bos_token_id=None,
            suppress_tokens=list(VOCABULARY.forbidden),
        )
        assert response == theirs[0, len(start) :].tolist()


# ------------------------------------------------------------------- states and losses
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", FAMILIES)
def test_states_of_a_ragged_batch_give_the_models_own_logits(family, attention) -> None:
    if "t5" in family and attention == "sdpa":
        pytest.skip("the family has one attention")
    one = build(family, seed=3)
    one.set_attn_implementation(attention)
    batch = collate(examples(family), 0)
    with torch.no_grad():
        got = head(one, batch_states(one, batch)[batch.predictors])
        assert torch.allclose(got, own_logits(one, batch), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_states_kept_while_verifying_are_those_of_a_fresh_forward(family) -> None:
    batch = rollout_of(family, RULES[0], 3).batch
    assert batch.teacher_states is not None
    with torch.no_grad():
        fresh = batch_states(model(family, 2), batch)[batch.predictors]
    torch.testing.assert_close(batch.teacher_states[batch.predictors], fresh, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_states_kept_on_disk_are_those_of_a_fresh_forward(family, tmp_path) -> None:
    teacher, rows = model(family, 2), examples(family)
    kept = keep(tmp_path / "states.safetensors", teacher, rows, VOCABULARY, 4)
    batch = collate(rows, 0)
    with torch.no_grad():
        fresh = batch_states(teacher, batch)[batch.predictors]
    torch.testing.assert_close(torch.cat([kept[row] for row in rows]), fresh)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_and_its_gradients_are_those_of_whole_logits(family) -> None:
    """Through the encoder too; T5 scales what its tied head reads, BART adds a bias."""
    student, teacher = build(family, seed=1), model(family, 2)
    batch = collate(examples(family), 0)
    loss, divergence = METHODS["skd_mixed_loss"].loss, Divergence("jsd", 0.3)
    with torch.no_grad():
        given = Predictions(teacher, batch_states(teacher, batch)[batch.predictors])
        taught = own_logits(teacher, batch)
    terms = Terms(loss, divergence, batch.targets)
    own = Predictions(student, batch_states(student, batch)[batch.predictors])
    total, _ = response_loss(terms, own, given, SIZE)
    total.backward()
    got = {name: p.grad.clone() for name, p in student.named_parameters() if p.grad is not None}
    student.zero_grad(set_to_none=True)
    none = torch.zeros_like(batch.targets, dtype=torch.bool)
    wanted = written_loss(loss, divergence, own_logits(student, batch), taught, batch.targets, none)
    wanted.backward()
    assert total.item() == pytest.approx(wanted.item(), rel=1e-5)
    asked = {name for name, p in student.named_parameters() if p.grad is not None}
    assert asked == set(got)
    assert any("encoder.layers" in name or "encoder.block" in name for name in asked)
    for name, parameter in student.named_parameters():
        if parameter.grad is not None:
            # T5's norms compute in fp32 whatever the weights are in
            error = (got[name] - parameter.grad).norm()
            assert error <= 1e-4 * parameter.grad.norm() + 1e-5, name


# ------------------------------------------------------------------- decoding
@pytest.mark.parametrize("family", ["t5", "m2m100", "marian", "bart"])
@pytest.mark.parametrize("gamma", [1, "auto"])
def test_speculative_decoding_gives_the_teachers_own_output(family, gamma) -> None:
    rows, noise = rows_of(family, 5), noise_for(5)
    draft, teacher = model(family, 1), model(family, 2)
    made = speculate(draft, teacher, rows, VOCABULARY, GREEDY, LENGTH, noise, "match", gamma)
    alone = sample(teacher, rows, VOCABULARY, GREEDY, LENGTH, noise)
    assert responses(made.rollout) == responses(alone)


@pytest.mark.parametrize("family", ["t5", "m2m100", "marian", "bart"])
def test_greedy_assisted_generation_gives_the_teachers_output(family) -> None:
    draft, teacher = model(family, 1), model(family, 2)
    rows = rows_of(family, 3, seed=3)
    made = [assist(draft, teacher, row, VOCABULARY, GREEDY, LENGTH) for row in rows]
    alone = sample(teacher, rows, VOCABULARY, GREEDY, LENGTH, noise_for(3))
    assert made == responses(alone)


# ------------------------------------------------------------------- what is refused
@pytest.mark.parametrize("family", FAMILIES)
def test_the_check_passes_every_family(family) -> None:
    check_decoder(build(family, seed=4))


def test_a_family_that_cannot_be_sampled_by_position_is_named() -> None:
    shape = {"encoder_layers": 1, "decoder_layers": 1, "d_model": 16, "langs": ["a", "b"]}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    sizes = {"src_vocab_size": SIZE, "tgt_vocab_size": SIZE}
    config = FSMTConfig(**shape, **heads, **sizes, encoder_ffn_dim=24, decoder_ffn_dim=24)
    with pytest.raises(UserError, match="FSMTForConditionalGeneration cannot be sampled"):
        check_decoder(FSMTForConditionalGeneration(config).eval())


def test_a_prompt_without_a_source_is_refused() -> None:
    with pytest.raises(ValueError, match="no source"):
        sample(model("t5", 1), [(0,)], VOCABULARY, STUDENT, LENGTH, noise_for(1))


def test_a_model_that_does_not_say_what_its_decoder_starts_with_is_refused() -> None:
    one = build("bart", seed=1)
    one.config.decoder_start_token_id = None
    with pytest.raises(UserError, match="decoder_start_token_id"):
        decoder_start(one)


def test_a_source_longer_than_a_table_of_positions_is_refused() -> None:
    one = build("bart", seed=1, max_position_embeddings=16)
    sample(one, [(*range(3, 15), 1, 2, 3)], VOCABULARY, STUDENT, LENGTH, noise_for(1), None, 9)
    with pytest.raises(UserError, match="16 positions"):
        sample(one, [(*range(3, 22), 1, 2, 3)], VOCABULARY, STUDENT, LENGTH, noise_for(1))


def test_block_sizes_weigh_decoders_alone() -> None:
    deep = build("m2m100", encoder_layers=6, decoder_layers=2)
    assert Pace("auto", [deep, deep]).student_share == 1.0
    assert Pace("auto", [build("bart", decoder_layers=1), deep]).student_share == 0.5


def test_a_micro_batch_keeps_its_states() -> None:
    batch = rollout_of("t5", RULES[0], 3).batch
    whole = batch_states(model("t5", 1), dataclasses.replace(batch, teacher_states=None))
    for start, part in zip((0, 2, 4), batch.split(2), strict=True):
        states = batch_states(model("t5", 1), part)[part.predictors]
        rows = slice(start, start + len(part.tokens))
        wanted = whole[rows][batch.predictors[rows]]
        torch.testing.assert_close(states, wanted, rtol=1e-5, atol=1e-5)
