"""Prompts and the reading of final answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skd.errors import UserError
from skd.tasks import TASKS, render
from skd.tasks.arithmetic import answer_text, parse_number, same_answer


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
@given(source=st.text())
def test_a_source_stands_in_its_prompt_unchanged(task, source):
    before, after = task.prompt.split("{source}")
    assert render(task.prompt, source) == before + source + after


def test_braces_in_template_and_source_are_plain_text():
    assert render("{a} {source} {}", "{source} {0}") == "{a} {source} {0} {}"


def test_a_template_without_a_place_for_the_source_is_an_error():
    with pytest.raises(UserError, match="source"):
        render("Translate:", "x")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5), ("-5", -5), ("+5", 5), ("\u22125", -5), ("1,234,567", 1234567),
        ("$1,234.50 a day.", 1234.5), ("$-5", -5), ("-$5", -5), ("€ 7", 7), ("50%", 50),
        ("3/4", 0.75), ("3 / 4", 0.75), (".5", 0.5), ("0.5", 0.5), ("5.", 5), ("5 apples.", 5),
        ("5km", 5), ("**8**", 8), ("\\boxed{9}", 9), ("1e3", 1000), ("1\u202f234", 1234),
        ("১২", 12), ("007", 7),
        ("", None), ("x", None), ("3/0", None), ("12:30", None), ("1.2.3", None), ("1,23", None),
        ("5-6", None), ("1e999", None), ("9" * 400, None), ("-", None), ("$", None),
        ("__import__('os')", None),
    ],
)  # fmt: skip
def test_numbers_are_read_as_written(text, value):
    assert parse_number(text) == value


@given(st.integers(-(10**12), 10**12))
def test_any_integer_is_read_with_and_without_separators(number):
    assert parse_number(str(number)) == number
    assert parse_number(f"{number:,}") == number
    assert parse_number(f"{number:,}.") == number


@given(st.text())
def test_reading_never_fails(text):
    parse_number(text)
    same_answer(text, "#### 4")


@pytest.mark.parametrize(
    ("output", "right"),
    [
        ("so 2+2\n#### 4", True),
        ("#### 4.0", True),
        ("#### 4 apples", True),
        ("#### $4", True),
        ("#### 8/2", True),
        ("#### 5", False),
        ("4", False),  # no mark
        ("the answer is 4\n####", False),
        ("####\n4", False),  # the number belongs on the line of the mark
        ("#### 4\nQ: next?\n#### 9", True),  # the first mark counts
        ("#### 9\n#### 4", False),
        ("", False),
    ],
)
def test_the_number_after_the_first_mark_decides(output, right):
    assert same_answer(output, "work\n#### 4") is right


def test_tolerance_forgives_rounding_and_nothing_more():
    assert same_answer("#### 0.3333", "#### 1/3")
    assert not same_answer("#### 0.33", "#### 1/3")
    assert not same_answer("#### 10000001", "#### 10000000")


def test_an_answer_that_is_no_number_is_compared_as_text():
    assert same_answer("#### b.", "#### B")
    assert not same_answer("#### C", "#### B")


def test_a_target_without_mark_cannot_be_scored():
    with pytest.raises(ValueError, match="####"):
        same_answer("#### 4", "4")


def test_answer_text_ends_with_its_line():
    assert answer_text("a #### 3 \nb") == "3"
    assert answer_text("a") is None
