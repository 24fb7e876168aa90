"""Arithmetic word problems (paper, section 4: GSM8K) and how a final answer is read.

The answer stands after `####`. The FIRST `####` counts, as in GSM8K's own scoring: what a
model writes after its answer (often a next, invented problem) must not change the score.
Where there is none, the answer is what the LAST `\\boxed{…}` holds, as in MATH's own scoring.

Plain numbers are read by a pattern and `float`. Two answers of which one is more than that
(`2\\sqrt{3}`, `(1, 2)`) are left to `skd.tasks.symbolic`. Nothing is evaluated as code.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from skd.tasks import symbolic
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


HEADING = re.compile(r"[\s*_]*[^\W\d_]{3,}")  # a marked line that begins with a word
BOX = re.compile(r"\\(?:boxed|fbox)\s*(?:(?P<open>\{)|(?P<bare>[^\s{}$\\]+))")
BRACES = re.compile(r"\\.|[{}]", re.DOTALL)  # `\{` is a sign, no brace

# LaTeX that changes the writing of a number and not the number.
WRITING = (
    (re.compile(r"\\!\s*"), ""),  # 1,\!000
    (re.compile(r"\{,\}"), ","),  # 1{,}000
    (re.compile(r"\\,"), "\u2009"),  # 1\,000
    (re.compile(r"\\[;: ]"), " "),
    (re.compile(r"\\[()\[\]]"), ""),  # \(5\)
    (re.compile(r"\^\s*\{?\s*\\circ\s*\}?|\\degree\b|°"), " "),
)
FRACTION = re.compile(
    r"^(?P<before>[\s*_=:$({]*[+-]?\s*)\\[dtc]?frac\s*"
    r"(?:\{\s*(?P<over>-?\d+)\s*\}|(?P<over_digit>\d))\s*"
    r"(?:\{\s*(?P<under>\d+)\s*\}|(?P<under_digit>\d))"
)
MIXED = re.compile(r"(\d+)\s+(\d+)\s*/\s*(\d+)")
PERCENT = re.compile(r"\s*(?:\\?%|(?:\\text\{\s*)?(?:percent(?:age)?|pct)\b)", re.IGNORECASE)
# After a number: it goes on as a formula or a list. All else is a unit or a remark.
GOES_ON = re.compile(
    r"""
    \s*(?:
        \\(?!text|mbox|mathrm|math[a-z]+\{|q?quad|[%$])[a-zA-Z{]     # 2\sqrt{3}; not 2\text{ cm}
      | \\text\{\s*(?:and|or)\b
      | [\^_]                                   # no `!`: "#### 5!" is joy, not 120
      | (?:[-+*/×÷·<>≤≥]\s*)[-+]?\s*(?:\d|[\\(](?!text)|[a-z](?![a-z]))
      | (?:,|;|\band\b|\bor\b)\s*[-+]?\s*(?:\d|\\(?!text))          # 1, 2
    )
    | \(\s*[-+]?\s*(?:\d|[a-z](?![a-z]))                             # 3(x+1); not 9 (apples)
    """,
    re.VERBOSE | re.IGNORECASE,
)
VARIABLES = re.compile(r"\s*(?P<letters>[abcijknpqrtuvwxyz]{1,2})\W*$", re.IGNORECASE)  # 3x, 2ab
SHORT_UNITS = frozenset(("a", "c", "in", "kt", "pt", "qt", "t", "yr"))
TEXT = re.compile(r"\\(?:text|mbox|math)[a-z]*\s*\{([^{}]*)\}")
FORMULA = re.compile(r"\\[a-zA-Z{]|[-+*/^=√π×÷·(]")
MATHEMATICS = re.compile(r"\d|\\[a-zA-Z{]|[+*/^=<>√π∞×÷·]|(?<![a-z])[a-z]\s*-\s*[a-z](?![a-z])")


@dataclass(frozen=True)
class Number:
    value: float
    percent: bool  # written with a percent sign; the value is the number before it


def answer_text(text: str) -> str | None:
    """What stands after the first `####`, to the end of its line; else in the last `\\boxed{…}`.

    A box inside the marked answer is opened. Where the mark opens a heading of Markdown (`#### Step
    1`), a box anywhere is the answer. None where there is neither, or where the last box is not
    closed.
    """
    _, mark, rest = text.partition(MARK)
    if not mark:
        return last_box(text)
    lines = rest.strip(" \t").splitlines()
    line = lines[0].strip() if lines else ""
    boxed = last_box(text) if HEADING.match(line) else last_box(line)
    return boxed or line


def last_box(text: str) -> str | None:
    """What the last `\\boxed{…}` holds, braces inside it included."""
    boxes = list(BOX.finditer(text))
    if not boxes:
        return None
    if boxes[-1]["bare"]:  # \boxed 5
        return boxes[-1]["bare"]
    start = boxes[-1].end()
    depth = 1
    for sign in BRACES.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(sign[0], 0)
        if depth == 0:
            return " ".join(text[start : sign.start()].split())
    return None


def parse_number(text: str) -> float | None:
    """The number that `text` opens with; None where it opens with none.

    Reads signs (the typographic minus too), thousands separators, decimals, currency signs,
    fractions a/b and exponents. A percent sign, units and a closing period are ignored.
    """
    opening = _opening(text)
    return None if opening is None else opening[0]


def plain_number(text: str) -> Number | None:
    """The number that `text` is, units and remarks aside; None where it is more, or none.

    Reads what `parse_number` reads, and LaTeX for the same: `\\frac{1}{2}`, `1{,}000`, `50\\%`.
    """
    for pattern, written in WRITING:
        text = pattern.sub(written, text)
    opening = _opening(FRACTION.sub(_slashed, text))
    if opening is None:
        return None
    value, rest = opening
    percent = PERCENT.match(rest)
    if percent is not None:
        rest = rest[percent.end() :]
    letters = VARIABLES.match(rest)
    if letters is not None and letters["letters"].lower() not in SHORT_UNITS:
        return None
    return None if GOES_ON.match(rest) else Number(value, percent is not None)


def _slashed(fraction: re.Match[str]) -> str:
    over = fraction["over"] or fraction["over_digit"]
    return f"{fraction['before']}{over}/{fraction['under'] or fraction['under_digit']}"


def _opening(text: str) -> tuple[float, str] | None:
    """The number that `text` opens with, and what follows it."""
    text = text.translate(MINUS)
    match = NUMBER.match(text)
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
    return -value if "-" in (match["sign"], match["inner_sign"]) else value, text[match.end() :]


def same_answer(output: str, target: str) -> bool:
    """Whether the output's final answer equals the target's.

    Two plain numbers are compared with `TOLERANCE`. `50%` equals 50, as in GSM8K's scoring, and
    also 0.5, as math-verify has it; 50 does not equal 0.5. Where one is a formula, they are
    compared as mathematics. All else (a choice such as `#### B`) is compared as text, without
    case and closing period. An output without an answer is wrong.

    Raises:
        ValueError: the target has no answer.
    """
    expected = answer_text(target)
    if expected is None:
        raise ValueError(f"no {MARK} and no \\boxed{{…}} in the target")
    given = answer_text(output)
    if given is None:
        return False
    if _words(given) == _words(expected):
        return True
    wanted, number = plain_number(expected), plain_number(given)
    if wanted is not None and number is not None:
        return _same_number(wanted, number)
    if not _worth_comparing(expected, given, wanted):
        return False
    return symbolic.same(_formula(expected), _formula(given))


def _same_number(one: Number, other: Number) -> bool:
    if abs(one.value - other.value) <= TOLERANCE:
        return True
    if one.percent == other.percent:
        return False
    share, number = (one, other) if one.percent else (other, one)
    return abs(share.value / 100 - number.value) <= TOLERANCE


def _worth_comparing(expected: str, given: str, wanted: Number | None) -> bool:
    """Whether only mathematics can tell; words and broken numbers are not worth a process."""
    expected, given = _words(expected), _words(given)
    if wanted is not None:
        return bool(FORMULA.search(given) and MATHEMATICS.search(given))
    return bool(MATHEMATICS.search(expected) and MATHEMATICS.search(given))


def _words(answer: str) -> str:
    text = " ".join(TEXT.sub(r"\1", answer).replace("$", "").split())
    text = text.rstrip(". ")
    return text if "\\" in text else text.casefold()  # \Delta is not \delta


def _formula(answer: str) -> str:
    """As the grammar reads it: mixed numbers as fractions, no percent sign (it fails on one)."""
    text = MIXED.sub(r"\1\\frac{\2}{\3}", answer.translate(MINUS).strip().rstrip(". "))
    return PERCENT.sub("", text)
