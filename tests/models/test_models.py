"""Pairs, vocabularies, layer pruning, and prompts under a budget."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AddedToken

from skd.errors import UserError
from skd.models.encoding import decode, encode
from skd.models.folders import ModelReference, write_reference
from skd.models.loading import load_model, load_tokenizer
from skd.models.pairs import check_pair, common_vocabulary, end_of_turn
from skd.models.procedural import procedural_model, train_tokenizer
from skd.models.settings import Budget, ProceduralModel
from tests.tiny import build

TEXTS = ["#Person1#: can you lend me 12 books?", "They meet at 7:30 on Monday.", "20 + 3 = 23"]
TEMPLATE = "Summarize: {source}"


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS * 20, 320)


def row(source: str, target: str = "fine", name: str = "train-0") -> dict[str, str]:
    return {"id": name, "source": source, "target": target}


# ----------------------------------------------------------------------- pair
def test_different_tokenizers_are_refused_with_the_first_difference(tokenizer) -> None:
    other = train_tokenizer(["quite another text"] * 20, 320)
    ids, others = tokenizer.get_vocab(), other.get_vocab()
    flat, flat_other = ({i: t for t, i in v.items()} for v in (ids, others))
    first = next(i for i in range(400) if flat.get(i) != flat_other.get(i))
    with pytest.raises(UserError, match=f"different tokenizers: id {first} is "):
        check_pair(tokenizer, other, "error")


def test_templates_and_ends_must_agree(tokenizer) -> None:
    other = train_tokenizer(TEXTS * 20, 320)
    check_pair(tokenizer, other, "error")
    other.chat_template = "{{ messages }}"
    with pytest.raises(UserError, match="template_mismatch"):
        check_pair(tokenizer, other, "error")
    check_pair(tokenizer, other, "teacher")
    other.eos_token = "<|user|>"
    with pytest.raises(UserError, match="eos_token_id"):
        check_pair(tokenizer, other, "teacher")


def test_the_vocabulary_counts_tokens_not_embedding_rows(tokenizer) -> None:
    size = len(tokenizer)
    padded = [build(vocab_size=size + extra, eos_token_id=None) for extra in (7, 64)]
    shared = common_vocabulary(tokenizer, *padded)
    assert shared.size == size
    assert shared.eos == (tokenizer.eos_token_id,)
    assert tokenizer.pad_token_id in shared.forbidden
    assert not set(shared.eos) & set(shared.forbidden)
    with pytest.raises(UserError, match="output rows"):
        common_vocabulary(tokenizer, build(vocab_size=size - 1))


def test_special_tokens_behind_a_models_rows_are_left_out_and_other_tokens_are_not() -> None:
    """Gemma 3: a tokenizer with an image token, a model of text without a row for it."""
    tokenizer = train_tokenizer(TEXTS * 20, 320)
    size = len(tokenizer)
    model = build(vocab_size=size, eos_token_id=None)
    plain = common_vocabulary(tokenizer, model)
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    assert common_vocabulary(tokenizer, model) == plain
    tokenizer.add_special_tokens({"pad_token": "<pad at the end>"})
    assert common_vocabulary(tokenizer, model).pad < size
    tokenizer.add_tokens(["word"])
    with pytest.raises(UserError, match="none for 'word'"):
        common_vocabulary(tokenizer, model)


def test_every_end_id_of_either_model_ends_a_response(tokenizer) -> None:
    model = build(vocab_size=len(tokenizer))
    model.generation_config.eos_token_id = [5, 6]
    assert set(common_vocabulary(tokenizer, model).eos) == {5, 6, tokenizer.eos_token_id}


def test_an_end_that_is_no_token_is_refused(tokenizer) -> None:
    size = len(tokenizer)
    model = build(vocab_size=size + 64)
    model.generation_config.eos_token_id = [5, size + 3]
    with pytest.raises(UserError, match=f"end-of-sequence id {size + 3} is none of the tokenizer"):
        common_vocabulary(tokenizer, model)


def test_ids_behind_a_hole_are_tokens_and_those_in_it_are_not(tokenizer, monkeypatch) -> None:
    ids = tokenizer.get_vocab()
    size = len(ids)
    moved = {token: i + 9 * (i >= size - 2) for token, i in ids.items()}
    monkeypatch.setattr(tokenizer, "get_vocab", lambda: moved)
    shared = common_vocabulary(tokenizer, build(vocab_size=size + 20))
    assert shared.size == size + 9
    assert set(range(size - 2, size + 7)) <= set(shared.forbidden)
    assert not {size + 7, size + 8} & set(shared.forbidden)


def test_padding_that_is_also_the_end_can_be_sampled() -> None:
    tokenizer = train_tokenizer(TEXTS * 20, 320)
    tokenizer.pad_token = tokenizer.eos_token
    shared = common_vocabulary(tokenizer, build(vocab_size=len(tokenizer), eos_token_id=None))
    assert shared.pad in shared.eos
    assert shared.pad not in shared.forbidden


def test_the_end_of_a_turn_is_read_off_the_template(tokenizer) -> None:
    assert end_of_turn(tokenizer) == tokenizer.convert_tokens_to_ids("<|end|>")
    gemma_like = train_tokenizer(TEXTS * 20, 320)
    gemma_like.chat_template = gemma_like.chat_template.replace("<|end|>", "<|user|>")
    assert end_of_turn(gemma_like) == gemma_like.convert_tokens_to_ids("<|user|>")


def test_special_tokens_without_a_name_count() -> None:
    """As Phi-3's `<|end|>` and Llama 3's marks: special, and neither eos nor pad nor any other."""
    tokenizer = train_tokenizer(TEXTS * 20, 320)
    tokenizer.add_tokens([AddedToken(text, special=True) for text in ("<|over|>", "<|header|>")])
    tokenizer.chat_template = tokenizer.chat_template.replace("<|end|>", "<|over|>")
    over, header = tokenizer.convert_tokens_to_ids(["<|over|>", "<|header|>"])
    assert not {over, header} & set(tokenizer.all_special_ids)
    assert end_of_turn(tokenizer) == over
    shared = common_vocabulary(tokenizer, build(vocab_size=len(tokenizer)))
    assert over in shared.eos
    assert header in shared.forbidden


# --------------------------------------------------------------------- models
def test_a_folder_without_a_model_is_named(tmp_path) -> None:
    with pytest.raises(UserError, match="no model here"):
        load_model(tmp_path)
    write_reference(tmp_path / "a", ModelReference(path="gone"))
    with pytest.raises(UserError, match="no such model folder"):
        load_model(tmp_path / "a")


def test_pickled_weights_are_refused(tmp_path, tokenizer) -> None:
    settings = ProceduralModel("procedural", hidden_size=16, layers=1, heads=2, steps=0)
    model = procedural_model(settings, tokenizer)
    model.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="safetensors"):
        load_model(tmp_path)


def test_a_procedural_model_and_its_tokenizer_survive_a_round_trip(tmp_path, tokenizer) -> None:
    settings = ProceduralModel("procedural", hidden_size=16, layers=2, heads=2, steps=0, seed=3)
    model = procedural_model(settings, tokenizer)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again, words = load_model(tmp_path), load_tokenizer(tmp_path)
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True)
    )
    assert words.get_vocab() == tokenizer.get_vocab()
    assert words.chat_template == tokenizer.chat_template
    assert decode(words("7 books").input_ids, words) == "7 books"


# --------------------------------------------------------------------- encode
def test_a_prompt_ends_with_the_generation_header_and_a_response_with_the_end(tokenizer) -> None:
    (example,) = encode([row("hello")], TEMPLATE, tokenizer, Budget(99, 20)).examples
    header = tokenizer.convert_tokens_to_ids("<|assistant|>")
    assert example.prompt[-1] == header
    assert example.response[-1] == tokenizer.eos_token_id
    assert decode(example.response, tokenizer) == "fine"
    assert "Summarize: hello" in tokenizer.decode(example.prompt)


def test_braces_in_the_source_stay(tokenizer) -> None:
    (example,) = encode([row("{x} {source}")], TEMPLATE, tokenizer, Budget(99, 20)).examples
    assert "Summarize: {x} {source}" in tokenizer.decode(example.prompt)


def test_a_prompt_over_the_budget_is_an_error_that_names_row_and_parameter(tokenizer) -> None:
    with pytest.raises(UserError, match=r"row 'train-7'.*max_prompt_tokens=20.*too_long"):
        encode([row("x" * 99, name="train-7")], TEMPLATE, tokenizer, Budget(20, 20))


def test_dropped_prompts_are_counted(tokenizer) -> None:
    rows = [row("short"), row("x" * 300), row("also short")]
    got = encode(rows, TEMPLATE, tokenizer, Budget(60, 20, too_long="drop"))
    assert (len(got.examples), got.dropped) == (2, 1)
    assert [r["source"] for r in got.rows] == ["short", "also short"]
    with pytest.raises(UserError, match="all 1 prompts"):
        encode(rows[1:2], TEMPLATE, tokenizer, Budget(60, 20, too_long="drop"))


def test_truncation_cuts_the_source_and_keeps_the_generation_header(tokenizer) -> None:
    budget = Budget(40, 20, too_long="truncate")
    (example,) = encode([row("x y " * 100)], TEMPLATE, tokenizer, budget).examples
    assert len(example.prompt) <= 40
    assert example.prompt[-1] == tokenizer.convert_tokens_to_ids("<|assistant|>")
    with pytest.raises(UserError, match="template alone"):
        encode([row("x y")], TEMPLATE, tokenizer, Budget(3, 20, too_long="truncate"))


def test_a_target_over_the_budget_is_cut_without_an_end_and_counted(tokenizer) -> None:
    got = encode([row("a", "b c d e f g h i j")], TEMPLATE, tokenizer, Budget(99, 4))
    assert got.cut == 1
    assert len(got.examples[0].response) == 4
    assert tokenizer.eos_token_id not in got.examples[0].response


def test_a_tokenizer_without_template_uses_the_bare_prompt() -> None:
    bare = train_tokenizer(TEXTS * 20, 320)
    bare.chat_template = None
    (example,) = encode([row("hello")], TEMPLATE, bare, Budget(99, 20)).examples
    assert bare.decode(example.prompt) == "Summarize: hello\n"
    assert example.response[-1] == bare.eos_token_id


@pytest.mark.parametrize("at", [0, 1])
def test_a_token_that_a_model_lacks_is_named_with_its_row(at) -> None:
    """As an image's token in the text of a model without eyes, which was an index error."""
    seeing = train_tokenizer(TEXTS * 20, 320)
    blind = build(vocab_size=len(seeing))
    seeing.add_special_tokens({"additional_special_tokens": ["<image>"]})
    vocabulary = common_vocabulary(seeing, blind)
    texts = ["hello", "fine"]
    texts[at] += " <image>"
    rows = [row("hello"), row(*texts, name="train-7")]
    encode(rows[:1], TEMPLATE, seeing, Budget(99, 20), vocabulary=vocabulary)
    with pytest.raises(UserError, match="row 'train-7': its text holds '<image>'"):
        encode(rows, TEMPLATE, seeing, Budget(99, 20), vocabulary=vocabulary)


def test_a_special_token_in_a_text_is_read_as_in_a_template(tokenizer) -> None:
    (example,) = encode([row("a<|assistant|>b")], TEMPLATE, tokenizer, Budget(99, 20)).examples
    assert example.prompt.count(tokenizer.convert_tokens_to_ids("<|assistant|>")) == 2


def test_the_shared_template_stands_beside_a_reference(tmp_path: Path, tokenizer) -> None:
    tokenizer.save_pretrained(tmp_path / "there")
    build(vocab_size=len(tokenizer)).float().save_pretrained(tmp_path / "there")
    write_reference(tmp_path / "here", ModelReference(path=str(tmp_path / "there")))
    (tmp_path / "here" / "chat_template.jinja").write_text("{{ messages[0].content }}")
    assert load_tokenizer(tmp_path / "here").chat_template == "{{ messages[0].content }}"
