"""Word problems of two or three steps, each with hundreds of valid worked solutions.

A problem is a story with number slots and a list of steps over them. A solution says every
step in one of four wordings, joined in one of three ways, after an optional opening and
before one of three endings, and closes with the line `#### N`. The set of solutions is
never enumerated: it is a product of choices, sampled for the target and written as one
regular expression for the valid set. This module knows no prompt and no tokens.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from skd.data.generators.example import Example, pick

LARGEST = 20  # every value a story reaches stays in 1..LARGEST

# One wording is enough to say a step: {l} and {r} are its operands, {v} its value.
WORDINGS: dict[str, tuple[str, ...]] = {
    "+": (
        "{l} + {r} = {v}",
        "{l} plus {r} is {v}",
        "adding {r} to {l} gives {v}",
        "{l} and {r} make {v}",
    ),
    "-": (
        "{l} - {r} = {v}",
        "{l} minus {r} is {v}",
        "taking {r} from {l} leaves {v}",
        "{l} less {r} is {v}",
    ),
    "*": (
        "{l} * {r} = {v}",
        "{l} times {r} is {v}",
        "multiplying {l} by {r} gives {v}",
        "{r} times {l} makes {v}",
    ),
    "/": (
        "{l} / {r} = {v}",
        "{l} divided by {r} is {v}",
        "splitting {l} by {r} gives {v}",
        "{r} goes into {l} {v} times",
    ),
}
OPENINGS = ("", "First, ")
JOINERS = ("; ", ", then ", ", and ")
ENDINGS = (".", ". So {v}.", ". Answer: {v}.")

COMPUTE: dict[str, Callable[[int, int], int]] = {
    "+": lambda left, right: left + right,
    "-": lambda left, right: left - right,
    "*": lambda left, right: left * right,
    "/": lambda left, right: left // right if right and left % right == 0 else -1,
}

NAMES = (
    ("Ana", "She"), ("Ben", "He"), ("Mina", "She"), ("Raj", "He"), ("Lena", "She"),
    ("Tom", "He"), ("Nila", "She"), ("Omar", "He"), ("Ivy", "She"), ("Sam", "He"),
)  # fmt: skip
THINGS = (
    "apples", "books", "pens", "cards", "stamps", "shells",
    "coins", "eggs", "cups", "balls", "nuts", "toys",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Step:
    """`left op right`; an operand is a slot's name (`a`, `b`, …) or an earlier step (`#0`)."""

    left: str
    op: str
    right: str


@dataclass(frozen=True, slots=True)
class Story:
    text: str  # {n} name, {s} she or he, {o} the other name, {t} things, {a} {b} {c} {d} numbers
    slots: tuple[tuple[int, int], ...]  # inclusive ranges of a, b, c, d
    steps: tuple[Step, ...]


def _chain(*steps: str) -> tuple[Step, ...]:
    return tuple(Step(*step.split()) for step in steps)


STORIES: tuple[Story, ...] = (
    Story(
        "{n} has {a} {t}. {s} buys {b} more and gives away {c}. How many are left?",
        ((3, 20), (2, 9), (2, 9)),
        _chain("a + b", "#0 - c"),
    ),
    Story(
        "{n} has {a} {t}. {s} loses {b} and then finds {c}. How many does {n} have?",
        ((5, 25), (2, 9), (2, 9)),
        _chain("a - b", "#0 + c"),
    ),
    Story(
        "{n} buys {a} bags of {b} {t}. {s} gives {c} to {o}. How many are left?",
        ((2, 5), (2, 6), (2, 9)),
        _chain("a * b", "#0 - c"),
    ),
    Story(
        "{n} has {c} {t} and gets {a} boxes of {b} each. How many does {n} have?",
        ((2, 5), (2, 6), (2, 9)),
        _chain("a * b", "#0 + c"),
    ),
    Story(
        "{n} has {a} {t}. {o} has {b} more than {n}. How many do they have together?",
        ((3, 12), (2, 9)),
        _chain("a + b", "a + #0"),
    ),
    Story(
        "{n} has {a} {t} and {o} has {b}. They share all equally in {c} boxes. "
        "How many are in a box?",
        ((3, 15), (3, 15), (2, 5)),
        _chain("a + b", "#0 / c"),
    ),
    Story(
        "{n} has {a} {t}. {s} buys {b}, loses {c} and gets {d} from {o}. How many are there?",
        ((5, 20), (2, 9), (2, 9), (2, 9)),
        _chain("a + b", "#0 - c", "#1 + d"),
    ),
    Story(
        "{n} fills {a} bags with {b} {t} and {c} bags with {d}. How many {t} are there?",
        ((2, 4), (2, 5), (2, 4), (2, 5)),
        _chain("a * b", "c * d", "#0 + #1"),
    ),
    Story(
        "{n} has {a} {t}, {o} has {b} times as many. They sell {c}. How many are left?",
        ((2, 9), (2, 4), (2, 9)),
        _chain("a * b", "a + #0", "#1 - c"),
    ),
)

ONE_STEP: tuple[Story, ...] = (
    Story("{n} has {a} {t} and gets {b}.", ((2, 30), (2, 20)), _chain("a + b")),
    Story("{n} has {a} {t} and loses {b}.", ((4, 40), (2, 20)), _chain("a - b")),
    Story("{n} has {a} bags of {b} {t}.", ((2, 9), (2, 9)), _chain("a * b")),
    Story("{n} shares {a} {t} in {b} boxes.", ((4, 40), (2, 6)), _chain("a / b")),
    Story("{a} + {b}", ((2, 30), (2, 20)), _chain("a + b")),
    Story("{a} - {b}", ((4, 40), (2, 20)), _chain("a - b")),
    Story("{a} * {b}", ((2, 9), (2, 9)), _chain("a * b")),
    Story("{a} / {b}", ((4, 40), (2, 6)), _chain("a / b")),
)


@dataclass(frozen=True, slots=True)
class Solved:
    """A step with its numbers: the operator, both operands and the value."""

    op: str
    left: int
    right: int
    value: int

    def says(self, wording: str) -> str:
        return wording.format(l=self.left, r=self.right, v=self.value)


def generate(n: int, rng: random.Random) -> Iterator[Example]:
    """Yield `n` problems; `references` holds the target alone, `valid_pattern` all solutions."""
    for _ in range(n):
        source, solved = _tell(pick(rng, STORIES), rng)
        target = _draw(solved, rng)
        yield Example(source, target, (target,), (1.0,), _pattern(solved))


def pretrain(n: int, rng: random.Random) -> Iterator[tuple[str, str]]:
    """Yield `n` one-step problems: counting and all wordings, but no chain and no `####`."""
    for _ in range(n):
        source, (step,) = _tell(pick(rng, ONE_STEP), rng)
        yield source, step.says(pick(rng, WORDINGS[step.op]))


def solutions(steps: int) -> int:
    """How many worked solutions a problem of so many steps has; all are equally likely."""
    return len(OPENINGS) * len(JOINERS) * len(ENDINGS) * len(WORDINGS["+"]) ** steps


def _tell(story: Story, rng: random.Random) -> tuple[str, tuple[Solved, ...]]:
    solved = None
    while solved is None:  # numbers that leave 1..LARGEST or do not divide are drawn again
        numbers = {
            slot: low + int(rng.random() * (high - low + 1))
            for slot, (low, high) in zip("abcd", story.slots, strict=False)
        }
        solved = _solve(story.steps, numbers)
    name, pronoun = pick(rng, NAMES)
    other = pick(rng, [candidate for candidate, _ in NAMES if candidate != name])
    text = story.text.format(n=name, s=pronoun, o=other, t=pick(rng, THINGS), **numbers)
    return text, solved


def _solve(steps: tuple[Step, ...], numbers: dict[str, int]) -> tuple[Solved, ...] | None:
    """The steps with their values, or None where a value leaves 1..LARGEST."""
    known = dict(numbers)
    solved: list[Solved] = []
    for index, step in enumerate(steps):
        left, right = known[step.left], known[step.right]
        value = COMPUTE[step.op](left, right)
        if not 1 <= value <= LARGEST:
            return None
        known[f"#{index}"] = value
        solved.append(Solved(step.op, left, right, value))
    return tuple(solved)


def _draw(solved: tuple[Solved, ...], rng: random.Random) -> str:
    body = pick(rng, JOINERS).join(step.says(pick(rng, WORDINGS[step.op])) for step in solved)
    value = solved[-1].value
    return f"{pick(rng, OPENINGS)}{body}{pick(rng, ENDINGS).format(v=value)}\n#### {value}"


def _pattern(solved: tuple[Solved, ...]) -> str:
    """One joiner serves the whole solution: captured where it first stands, repeated after."""
    value = solved[-1].value
    opening = _either(OPENINGS)
    first = f"(?P<join>{'|'.join(re.escape(joiner) for joiner in JOINERS)})"
    says = [_either([step.says(w) for w in WORDINGS[step.op]]) for step in solved]
    body = says[0] + "".join((first if i == 0 else "(?P=join)") + s for i, s in enumerate(says[1:]))
    ending = _either([e.format(v=value) for e in ENDINGS])
    return f"{opening}{body}{ending}\\n\\#\\#\\#\\#\\ {value}"


def _either(texts: tuple[str, ...] | list[str]) -> str:
    return f"(?:{'|'.join(re.escape(text) for text in texts)})"
