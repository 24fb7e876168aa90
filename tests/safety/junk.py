"""Values and texts that no person means, and some that somebody might."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

Path = tuple[Any, ...]

NAMES = st.sampled_from([
    "../outside", "/outside/x", "..", ".", "", " ", "a/b", "a\\b", "-rf", "--help",
    "x; touch owned", "$(touch owned)", "`touch owned`", "a|b", "a&b", "a>owned", "a\nb", "a\x00b",
    "\x1b[2Jx", "\u202egnp", "\ud800", "A", "ä", "字", "{x}", "%s", "~", "~nobody", "x" * 300,
    "con", "null", "<script>alert(1)</script>", "${HOME}", "${item}", "*",
])  # fmt: skip
TEXTS = st.one_of(NAMES, st.text(max_size=30), st.text(st.characters(), max_size=10))
NUMBERS = st.one_of(
    st.integers(),
    st.sampled_from([0, -1, 2**31, 2**53, 2**63, 2**64, 10**30, 10**400]),
    st.floats(),
    st.booleans(),
)
SCALARS = st.one_of(st.none(), NUMBERS, TEXTS)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=6,
)


def paths(value: Any, here: Path = ()) -> list[Path]:
    """The place of every value in a document."""
    parts = (
        value
        if isinstance(value, dict)
        else dict(enumerate(value if isinstance(value, list) else ()))
    )
    return [here, *(path for key, part in parts.items() for path in paths(part, (*here, key)))]


@st.composite
def spoilt(draw: st.DrawFn, document: Any) -> Any:
    """The document with a value or a key that is wrong, in one to three places."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        places = [path for path in paths(document) if path]
        if not places:
            break
        *above, last = draw(st.sampled_from(places))
        holder = document
        for key in above:
            holder = holder[key]
        change = draw(st.sampled_from(["replace", "replace", "remove", "rename", "double"]))
        if change == "replace":
            holder[last] = draw(ANYTHING)
        elif change == "remove":
            del holder[last]
        elif isinstance(holder, dict):
            holder[draw(TEXTS)] = holder[last] if change == "double" else holder.pop(last)
        else:
            holder.append(holder[last])
    return document


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """The bytes of a file after an accident: cut, overwritten, in another encoding, doubled."""
    place = draw(st.integers(0, len(content)))
    other = draw(st.binary(max_size=12))
    text = content.decode(errors="replace")
    return draw(
        st.sampled_from([
            content[:place],
            content[:place] + other + content[place:],
            content[:place] + other + content[place + len(other) :],
            content[:place] + b"\x00" + content[place:],
            b"\xef\xbb\xbf" + content,
            text.encode("utf-16"),
            text.encode("latin-1", errors="replace") + b"\xe9",
            content + content,
            content.replace(b"\n", b"\r"),
            content.replace(b'"', b"'"),
            b"",
            other,
        ])
    )  # fmt: skip
