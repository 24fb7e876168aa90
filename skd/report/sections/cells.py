"""Markdown cells and tables, and how numbers are written in them. Knows no experiment.

Text from data and models is written as HTML entities where GitHub would read markup: a
dialogue's `#Person1#`, a price's `$` or a stray `|` must stay what they are. Addresses become no
links, what is not to be seen is shown as a sign, and a text of megabytes is cut.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import isfinite

from skd.errors import printable
from skd.report.reading.experiment import INSTRUCT_START, SFT_START, TEACHER_ROW
from skd.report.verdicts.across import Estimate
from skd.report.verdicts.comparison import Word
from skd.report.verdicts.statistics import seed_interval
from skd.report.verdicts.tables import Verdict

TITLES = {
    "sentence_chrf": "sentence chrF",
    "chrf": "corpus chrF",
    "bleu": "BLEU",
    "comet": "COMET",
    "rouge_1": "ROUGE-1",
    "rouge_2": "ROUGE-2",
    "rouge_l": "ROUGE-L",
    "exact_match": "exact answer %",
    "valid": "valid %",
    "stopped": "stopped %",
}
NAMES = {
    TEACHER_ROW: "*teacher*",
    SFT_START: "*untrained student, SFT start*",
    INSTRUCT_START: "*untrained student, instruct start*",
}
SIGNS = {Word.BETTER: "▲", Word.EQUAL: "=", Word.UNDECIDED: "?", Word.WORSE: "▼"}
LEGEND = "▲ better, = equal, ▼ worse, ? undecided"
MARKUP = str.maketrans({character: f"&#{ord(character)};" for character in "&<>|*_`~[]$#@\\"})
_LINK = re.compile(r"://|\bwww\.", re.IGNORECASE)
LONGEST = 4000  # characters of a text that are shown
NONE = "–"


def plain_text(text: str) -> str:
    """Text from outside, on one line, with nothing left for Markdown to read."""
    shown, rest = text.strip()[:LONGEST], len(text.strip()) - LONGEST
    lines = [_LINK.sub(_unlinked, printable(line).translate(MARKUP)) for line in shown.splitlines()]
    more = f" *(and {rest:,} characters more)*" if rest > 0 else ""
    return ("<br>".join(lines) or "*(empty)*") + more


def _unlinked(match: re.Match[str]) -> str:
    """GitHub makes links of bare addresses, by their `://` and `www.`."""
    return match[0].replace(":", "&#58;").replace(".", "&#46;")


def table(header: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int = 1) -> str:
    """A Markdown table; the first `text_columns` are left-aligned, the rest are numbers."""
    rule = [":--" if column < text_columns else "--:" for column in range(len(header))]
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, rule, *rows))


def details(summary: str, body: str) -> str:
    return f"<details>\n<summary>{summary}</summary>\n\n{body}\n\n</details>"


def figure(name: str, caption: str, drawn: Sequence[str], folder: str = "figures") -> str:
    """The picture and a link to its numbers; empty where it was not drawn."""
    if name not in drawn:
        return ""
    return f"![{caption}]({folder}/{name}.png)\n\n[Its data]({folder}/{name}.csv)"


def values_text(values: Sequence[float]) -> str:
    """Scores of the runs: mean and interval, or the runs themselves where they are too few."""
    if not values:
        return NONE
    interval = seed_interval(values)
    if interval.half_width is None or interval.bounds is None:
        return " / ".join(f"{value:.1f}" for value in values)
    low, high = interval.bounds
    if high - low < 2 * interval.half_width * (1 - 1e-9):  # cut off at 0 or 100
        return f"{interval.mean:.1f} ({low:.1f} to {high:.1f})"
    return f"{interval.mean:.1f} ± {interval.half_width:.1f}"


def spread_words(seeds: int) -> str:
    """What `values_text` writes, for the sentence above a table."""
    if seeds == 1:
        return "one value each; interval n/a (one seed)"
    if seeds == 2:
        return "both runs of each method"
    return "mean ± 95 % t-interval over seeds"


def estimate_text(estimate: Estimate, unit: str = "") -> str:
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.0f}{unit}"
    return f"{estimate.value:.0f}{unit} ({estimate.low:.0f} to {estimate.high:.0f})"


def number(value: float | None, digits: int = 0) -> str:
    return NONE if value is None or not isfinite(value) else f"{value:,.{digits}f}"


def sign(verdict: Verdict) -> str:
    """How the OTHER method stands to the first; empty where no verdict was possible."""
    return f" {SIGNS[verdict.mirrored().word]}" if verdict.possible else ""


def range_text(verdict: Verdict) -> str:
    """The interval of a difference."""
    comparison = verdict.comparison
    return f"{comparison.low:+.1f} … {comparison.high:+.1f}" if verdict.possible else NONE


def p_text(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def points_text(points: float) -> str:
    """`2 points`, `1 point`, `2.5 points`"""
    return f"{points:g} point" + ("" if points == 1 else "s")


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def row_name(name: str) -> str:
    return NAMES.get(name, f"`{name}`")


def listed(items: Sequence[str]) -> str:
    """a · a and b · a, b and c"""
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def codes(names: Sequence[str]) -> str:
    return listed([f"`{name}`" for name in names])
