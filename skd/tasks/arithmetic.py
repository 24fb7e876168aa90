"""Arithmetic word problems (paper, section 4: GSM8K) and how a final answer is read.

The answer stands after `####`. The FIRST `####` counts, as in GSM8K's own scoring: what a
model writes after its answer (often a next, invented problem) must not change the score.
Numbers are read by a pattern and `float`, never evaluated as code.
"""

from __future__ import annotations

import math
import re

from skd.tasks.base import Task

TASK = Task(
    name="arithmetic",
    prompt="Q: {source}\nA:",
    metrics=("exact_match", "valid", "stopped"),
    primary="exact_match",
)

MARK = "####"
TOLERANCE = 1e-4  # absolute: 1/3 equals 0.3333, and 10000000 differs from 10000001

MINUS = str.maketrans({"\u2212": "-", "\u2013": "-", "\ufe63": "-", "\uff0d": "-"})
NUMBER = re.compile(
    r"""
    [\s*_=:]* (?:\\boxed\{|\()? \s*          # markup a model may put before the number
    (?P<sign>[+-]?) \s*
    (?:\\?[$€£¥₹৳]|(?:USD|EUR|GBP|INR|Rs\.?)\b)? \s*
    (?P<inner_sign>[+-]?) \s*                # "$-5" as well as "-$5"
    (?P<whole>\d{1,3}(?:[,\u00a0\u2009\u202f']\d{3})+|\d+)?
    (?P<decimals>\.\d+)?
    (?P<exponent>[eE][+-]?\d{1,3})?
    (?:\s*/\s*(?P<divisor>\d+(?:\.\d+)?))?
    (?!\s?[,.:/-]?\d)                        # "12:30", "1.2.3", "1,23", "5-6", "2 1/2": no number
    """,
    re.VERBOSE,
)
GROUPING = re.compile(r"[,\u00a0\u2009\u202f']")


def answer_text(text: str) -> str | None:
    """What stands after the first `####`, to the end of its line; None where there is none."""
    _, mark, rest = text.partition(MARK)
    lines = rest.strip(" \t").splitlines()
    return (lines[0].strip() if lines else "") if mark else None


def parse_number(text: str) -> float | None:
    """The number that `text` opens with; None where it opens with none.

    Reads signs (the typographic minus too), thousands separators, decimals, currency signs,
    fractions a/b and exponents. A percent sign, units and a closing period are ignored.
    """
    match = NUMBER.match(text.translate(MINUS))
    if match is None or not (match["whole"] or match["decimals"]):
        return None
    digits = GROUPING.sub("", match["whole"] or "0")
    value = float(digits + (match["decimals"] or "") + (match["exponent"] or ""))
    if match["divisor"]:
        divisor = float(match["divisor"])
        if divisor == 0:
            return None
        value /= divisor
    if not math.isfinite(value):
        return None
    return -value if "-" in (match["sign"], match["inner_sign"]) else value


def same_answer(output: str, target: str) -> bool:
    """Whether the output's final answer equals the target's.

    Two numbers are compared with `TOLERANCE`; where the target's answer is not a number
    (a choice such as `#### B`), the texts are compared without case and closing period.
    An output without `####` is wrong.

    Raises:
        ValueError: the target has no `####`.
    """
    expected = answer_text(target)
    if expected is None:
        raise ValueError(f"no {MARK} in the target")
    given = answer_text(output)
    if given is None:
        return False
    wanted = parse_number(expected)
    if wanted is None:
        return given.rstrip(". ").casefold() == expected.rstrip(". ").casefold()
    number = parse_number(given)
    return number is not None and abs(number - wanted) <= TOLERANCE
