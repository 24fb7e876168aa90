"""The survey of families: what it calls exact, refused and neither, and how it says so."""

from __future__ import annotations

import pytest

from benchmarks import families
from benchmarks.families import Found, survey


@pytest.mark.parametrize(
    ("kind", "outcome"), [("llama", "exact"), ("gemma3_text", "exact"), ("mpt", "refused")]
)
def test_a_family_is_sampled_exactly_or_refused(kind, outcome) -> None:
    assert survey(kind).outcome == outcome


def test_a_sampler_that_is_wrong_is_found(monkeypatch) -> None:
    right = families.sample

    def wrong(student, rows, *arguments):
        return right(student, [row[::-1] for row in rows], *arguments)

    monkeypatch.setattr(families, "sample", wrong)
    assert survey("llama").outcome == "differs"


def test_a_family_that_raises_is_no_refusal(monkeypatch) -> None:
    def broken(*_):
        raise IndexError("out of range")

    monkeypatch.setattr(families, "sample", broken)
    assert survey("llama") == Found("llama", "crashed", "IndexError: out of range")


def test_the_page_has_every_kind_once_with_its_reason() -> None:
    found = [Found("a", "exact"), Found("b", "refused", "x | <y>"), Found("c", "not made", "z")]
    text = families.page(found)
    assert "of 3 kinds of causal language models 1 are sampled exactly" in text
    assert "| `b` | x \\| &lt;y> |" in text
    assert [text.count(f"`{one.kind}`") for one in found] == [1, 1, 1]
    assert "Not the algorithm's tokens" not in text
