"""Spans of two tokenizers: they cover every text, and each is one piece of it to both."""

from __future__ import annotations

from itertools import pairwise, permutations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from skd.engine.sequences import TokenExample, Vocabulary
from skd.engine.spans import common_ends
from skd.models.alignment import Translator, shared_classes, texts_of
from tests.two_tokenizers import large, permuted, small, unigram

TOKENIZERS = {"small": small, "large": large, "unigram": unigram}
PAIRS = list(permutations(TOKENIZERS, 2))
TEXTS = st.text(st.sampled_from("the cat sat 12+ আৰুকলম 你好🙂\n") | st.characters(codec="utf-8"))
TEXTS |= st.sampled_from(["<|user|>", "a<|end|> b"])  # spelt out, and no tokens


def translator(student: str, teacher: str) -> Translator:
    ours, theirs = TOKENIZERS[student](), TOKENIZERS[teacher]()
    ends = (ours.eos_token_id,), (theirs.eos_token_id,)
    return Translator(ours, theirs, *ends, prompts={(3,): (4, 5)})


def ids_of(text: str, tokenizer) -> tuple[int, ...]:
    """What a model can emit for it: no special token but its end."""
    plain = tokenizer(text, add_special_tokens=False, split_special_tokens=True)
    return tuple(plain.input_ids)


def decoded(ids, tokenizer) -> str:
    return tokenizer.decode(ids, clean_up_tokenization_spaces=False)


@pytest.mark.parametrize("name", TOKENIZERS)
@given(text=TEXTS)
@settings(max_examples=40)
def test_the_texts_of_tokens_make_up_the_decoded_text(name, text) -> None:
    tokenizer = TOKENIZERS[name]()
    ids = ids_of(text, tokenizer)
    assert "".join(texts_of(ids, tokenizer, whole=True)) == decoded(ids, tokenizer)


@pytest.mark.parametrize(("student", "teacher"), PAIRS)
@given(text=TEXTS, ended=st.booleans())
@settings(max_examples=25)
def test_spans_cover_the_text_and_each_is_the_same_text_to_both(
    student, teacher, text, ended
) -> None:
    between = translator(student, teacher)
    content = ids_of(text, between.student)
    assume(
        between.student.eos_token_id not in content
    )  # Unigram reads its end wherever it is spelt
    whole = decoded(content, between.student)
    response = (*content, between.student.eos_token_id) if ended else content
    read = between.to_teacher(TokenExample((3,), response))
    assert read.example.prompt == (4, 5)
    own = read.example.response
    if ended:
        assert (response[-1], own[-1]) == (
            between.student.eos_token_id,
            between.teacher.eos_token_id,
        )
        assert (read.student_ends[-1], read.teacher_ends[-1]) == (len(response), len(own))
    elif whole:
        assert (read.student_ends[-1], read.teacher_ends[-1]) == (len(response), len(own))
    ends = list(zip((0, *read.student_ends), (0, *read.teacher_ends), strict=True))
    for (start, teacher_start), (stop, teacher_stop) in pairwise(ends):
        assert start < stop
        assert teacher_start < teacher_stop
        ours = decoded(content[:stop], between.student)
        read_end = ended and teacher_stop == len(own)
        theirs = decoded(own[: teacher_stop - read_end], between.teacher)
        assert ours.removeprefix(" ") == theirs.removeprefix(" ")  # Unigram's decoder leaves it out


def test_spans_end_wherever_a_token_of_each_does() -> None:
    between = translator("small", "large")
    text = "the cat, the hat"
    read = between.to_teacher(TokenExample((3,), ids_of(text, between.student)))
    places = []
    for ids, tokenizer in (
        (ids_of(text, between.student), between.student),
        (read.example.response, between.teacher),
    ):
        places.append({len(decoded(ids[:n], tokenizer)) for n in range(1, len(ids) + 1)})
    assert len(read.student_ends) == len(places[0] & places[1])


def test_a_character_in_several_tokens_is_in_one_span() -> None:
    between = translator("small", "large")
    content = ids_of("a🙂b", between.student)
    assert len(content) == 6  # the face in four bytes
    read = between.to_teacher(TokenExample((3,), content))
    assert [s for s in read.student_ends if 1 < s < 5] == []
    assert read.student_ends[-1] == 6


def test_what_a_cut_left_of_a_character_is_in_no_span_and_not_read() -> None:
    between = translator("small", "large")
    content = ids_of("ab🙂", between.student)[:-1]
    read = between.to_teacher(TokenExample((3,), content))
    assert read.student_ends[-1] == len(content) - 3
    assert decoded(read.example.response, between.teacher) == "ab"
    ended = between.to_teacher(TokenExample((3,), (*content, between.student.eos_token_id)))
    assert ended.student_ends[-1] == len(content) + 1  # it chose to end there


@given(st.lists(st.integers(-1, 9), max_size=9), st.lists(st.integers(-1, 9), max_size=9))
def test_common_ends_are_the_places_of_both(student, teacher) -> None:
    ours, theirs = common_ends(sorted(student), sorted(teacher))
    found = [sorted(student)[n - 1] for n in ours]
    assert found == [sorted(teacher)[n - 1] for n in theirs]
    assert found == sorted({p for p in student if p > 0} & {p for p in teacher if p > 0})


@pytest.mark.parametrize(("student", "teacher"), PAIRS)
@given(text=TEXTS)
@settings(max_examples=15)
def test_a_teachers_response_keeps_its_text_and_its_end(student, teacher, text) -> None:
    between = translator(student, teacher)
    content = ids_of(text, between.teacher)
    assume(between.teacher.eos_token_id not in content)
    wanted = decoded(content, between.teacher).strip()
    made = between.to_student((*content, between.teacher.eos_token_id), 10_000)
    assert made[-1] == between.student.eos_token_id
    assert decoded(made[:-1], between.student) == wanted
    cut = between.to_student(content, 10_000)
    assert cut == made[:-1]
    assert between.to_student(content, 3) == cut[:3]


def test_a_slow_tokenizer_of_a_teacher_is_refused() -> None:
    class Slow:
        is_fast = False

    with pytest.raises(Exception, match=r"Slow, does not say where .* tokenizer\.json"):
        Translator(small(), Slow(), (1,), (1,), prompts={})  # type: ignore[arg-type]


# ---------------------------------------------------------------------- classes
def vocabulary(tokenizer) -> Vocabulary:
    return Vocabulary(len(tokenizer), (tokenizer.eos_token_id,), tokenizer.pad_token_id, ())


def classes(student, teacher):
    return shared_classes(student, vocabulary(student), teacher, vocabulary(teacher))


def test_the_same_tokens_under_other_ids_have_a_class_each() -> None:
    other, order = permuted(large())
    found = classes(large(), other)
    assert found.count == len(large())
    assert found.student.tolist() == found.teacher[order].tolist()
    assert sorted(found.student.tolist()) == list(range(found.count))


def test_tokens_of_one_text_share_a_class_and_others_go_with_the_longest_that_they_begin_with() -> (
    None
):
    ours, theirs = large(), small()
    found = classes(ours, theirs)
    names = {token: found.student[i].item() for token, i in ours.get_vocab().items()}
    others = {token: found.teacher[i].item() for token, i in theirs.get_vocab().items()}
    shared = names.keys() & others.keys()
    assert all(names[token] == others[token] for token in shared)
    only_ours = [token for token in names.keys() - shared if token.isascii()]
    assert only_ours
    for token in only_ours:
        longest = max((token[:n] for n in range(1, len(token)) if token[:n] in shared), key=len)
        assert names[token] == names[longest]
    assert names["<|end|>"] == others["<|end|>"]


def test_a_space_before_a_word_belongs_to_the_token_in_every_kind_of_tokenizer() -> None:
    found = classes(unigram(), large())
    ours, theirs = unigram().get_vocab(), large().get_vocab()
    spaced = [(token, f"Ġ{token[1:]}") for token in ours if token.startswith("▁")]
    plain = [(token, token) for token in ours if token.isalpha()]
    for pairs in (spaced, plain):
        known = [(a, b) for a, b in pairs if b in theirs]
        assert known
        assert all(found.student[ours[a]] == found.teacher[theirs[b]] for a, b in known)
    assert found.student[ours["<end>"]] == found.teacher[theirs["<|end|>"]]
    assert found.student[ours["<0xF0>"]] == found.count  # half a character: no text of its own
