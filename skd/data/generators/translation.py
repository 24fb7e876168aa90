"""Assamese to English from Babel's CLDR tables: dates, times, money, amounts, names.

A phrase has one Assamese form, an ISO-like canonical form and a few English renderings; an
example is one phrase or two joined by "and" or "or". Babel writes Latin digits for
Assamese, so they are turned into Bengali ones here, and it prints the bare key where a
unit's pattern is missing, so the units are listed with the length that does exist.
This module knows no prompt and no tokens.
"""

from __future__ import annotations

import datetime
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from babel import dates, lists, numbers

from skd.data.generators import cldr
from skd.data.generators.cldr import SOURCE, TARGET
from skd.data.generators.example import Example, from_weighted, pick

BENGALI_DIGITS = str.maketrans("0123456789", "০১২৩৪৫৬৭৮৯")
# CLDR unit -> (the Assamese pattern's length, a short code). "long" is missing for some.
UNITS: dict[str, tuple[str, str]] = {
    "length-kilometer": ("long", "km"),
    "length-meter": ("long", "m"),
    "length-foot": ("long", "ft"),
    "mass-kilogram": ("long", "kg"),
    "mass-gram": ("long", "g"),
    "volume-liter": ("long", "l"),
    "area-acre": ("short", "ac"),
    "area-hectare": ("short", "ha"),
    "duration-hour": ("short", "h"),
    "duration-minute": ("short", "min"),
}
PERIODS = {"day": "d", "week": "w", "month": "mo", "hour": "h"}
CURRENCIES = ("INR", "USD", "EUR", "GBP", "JPY", "CNY")
CURRENCY_SIGNS = {"INR": "₹", "USD": "$", "EUR": "€", "GBP": "£", "JPY": "¥", "CNY": "CN¥"}
LANGUAGES = ("as", "hi", "ta", "te", "ur", "ne", "fr", "de", "es", "ru", "ja", "ko", "ar")
TERRITORIES = ("IN", "NP", "BT", "CN", "JP", "CA", "BR", "FR", "DE", "IT", "EG", "KE", "IR", "TH")
WORDS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
    "ten", "eleven", "twelve",
)  # fmt: skip

JOINERS = {  # Babel's list style -> (canonical sign, English renderings by weight)
    "standard": (" + ", (("{} and {}", 0.55), ("{} & {}", 0.25), ("both {} and {}", 0.2))),
    "or": (" / ", (("{} or {}", 0.55), ("either {} or {}", 0.3), ("{}, or {}", 0.15))),
}
PAIRS = 0.75  # share of examples with two phrases


@dataclass(frozen=True, slots=True)
class Phrase:
    source: str  # Assamese, Latin digits as Babel writes them
    canonical: str  # the content in the pretraining format
    renderings: tuple[tuple[str, float], ...]  # English, weight


def generate(n: int, rng: random.Random) -> Iterator[Example]:
    """Yield `n` pairs; all English renderings of a source are its references (≤ 32)."""
    for _ in range(n):
        phrases, style = _draw(rng)
        yield from_weighted(_source(phrases, style), _renderings(phrases, style), rng)


def pretrain(n: int, rng: random.Random) -> Iterator[tuple[str, str]]:
    """Yield `n` Assamese texts with their canonical forms joined by a sign."""
    for _ in range(n):
        phrases, style = _draw(rng)
        yield _source(phrases, style), JOINERS[style][0].join(p.canonical for p in phrases)


def _draw(rng: random.Random) -> tuple[list[Phrase], str]:
    makers = list(PHRASES)
    rng.shuffle(makers)  # two phrases are of two kinds
    count = 2 if rng.random() < PAIRS else 1
    return [make(rng) for make in makers[:count]], pick(rng, tuple(JOINERS))


def _source(phrases: list[Phrase], style: str) -> str:
    template = cldr.join(style) if len(phrases) == 2 else "{}"
    return template.format(*(phrase.source for phrase in phrases)).translate(BENGALI_DIGITS)


def _renderings(phrases: list[Phrase], style: str) -> Iterator[tuple[str, float]]:
    if len(phrases) == 1:
        yield from phrases[0].renderings
        return
    first, second = phrases
    for template, weight in JOINERS[style][1]:
        for left, left_weight in first.renderings:
            for right, right_weight in second.renderings:
                yield template.format(left, right), weight * left_weight * right_weight


# ------------------------------------------------------------------- phrases
def _date(rng: random.Random) -> Phrase:
    day = datetime.date(1990 + int(rng.random() * 40), 1, 1)
    day += datetime.timedelta(days=int(rng.random() * 365))
    month = cldr.month(day.month)
    return Phrase(
        dates.format_date(day, "d MMMM, y", locale=SOURCE),
        day.isoformat(),
        (
            (f"{month} {day.day}, {day.year}", 0.55),
            (f"{day.day} {month} {day.year}", 0.3),
            (f"the {_ordinal(day.day)} of {month} {day.year}", 0.15),
        ),
    )


def _weekday(rng: random.Random) -> Phrase:
    day = datetime.date(2024, 1, 1) + datetime.timedelta(days=int(rng.random() * 366))
    name, month = cldr.day_name(day.weekday()), cldr.month(day.month)
    return Phrase(
        dates.format_date(day, "EEEE, d MMMM", locale=SOURCE),
        f"{day:%m-%d} {day.isoweekday()}",
        (
            (f"{name}, {month} {day.day}", 0.55),
            (f"{name}, {day.day} {month}", 0.3),
            (f"{name} the {_ordinal(day.day)} of {month}", 0.15),
        ),
    )


def _days(rng: random.Random) -> Phrase:
    first = 1 + int(rng.random() * 20)
    last, number = first + 1 + int(rng.random() * 8), 1 + int(rng.random() * 12)
    begin, end = datetime.date(2023, number, first), datetime.date(2023, number, last)
    month = cldr.month(number)
    return Phrase(
        f"{dates.format_interval(begin, end, 'd', locale=SOURCE)} {cldr.month(number, SOURCE)}",
        f"{begin:%m-%d}..{end:%d}",
        (
            (f"{month} {first}–{last}", 0.5),
            (f"{first} to {last} {month}", 0.3),
            (f"from {month} {first} to {last}", 0.2),
        ),
    )


def _time(rng: random.Random) -> Phrase:
    clock = datetime.time(int(rng.random() * 24), 5 * int(rng.random() * 12))
    hour, half = (clock.hour % 12) or 12, "AM" if clock.hour < 12 else "PM"
    return Phrase(
        dates.format_skeleton("hm", clock, locale=SOURCE),
        f"{clock:%H:%M}",
        (
            (f"{hour}:{clock:%M} {half}", 0.55),
            (f"{clock:%H:%M}", 0.25),
            (f"{hour}:{clock:%M} {'a.m.' if half == 'AM' else 'p.m.'}", 0.2),
        ),
    )


def _money(rng: random.Random) -> Phrase:
    code, amount = pick(rng, CURRENCIES), 2 + int(rng.random() * 498)
    return Phrase(
        cldr.currency(amount, code, SOURCE),
        f"{code} {amount}",
        (
            (cldr.currency(amount, code, TARGET), 0.5),
            (f"{CURRENCY_SIGNS[code]}{amount}", 0.3),
            (f"{amount} {code}", 0.2),
        ),
    )


def _percent(rng: random.Random) -> Phrase:
    share = 1 + int(rng.random() * 99)
    return Phrase(
        numbers.format_percent(share / 100, locale=SOURCE),
        f"{share} pct",
        ((f"{share}%", 0.5), (f"{share} percent", 0.3), (f"{share} per cent", 0.2)),
    )


def _amount(rng: random.Random) -> Phrase:
    unit, value = pick(rng, tuple(UNITS)), 2 + int(rng.random() * 98)
    length, code = UNITS[unit]
    name = cldr.unit(unit, "long", TARGET)
    short = cldr.unit(unit, "short", TARGET)
    renderings = [(name.format(value), 0.6), (short.format(value), 0.4)]
    if value < len(WORDS):
        renderings = [(name.format(value), 0.5), (short.format(value), 0.3)]
        renderings.append((name.format(WORDS[value]), 0.2))
    return Phrase(
        cldr.unit(unit, length, SOURCE).format(value), f"{value} {code}", tuple(renderings)
    )


def _relative(rng: random.Random) -> Phrase:
    period, value = pick(rng, tuple(PERIODS)), 2 + int(rng.random() * 11)
    past = rng.random() < 0.5
    plural = f"{period}s"
    source = cldr.distance(period, -1 if past else 1).replace("{}", str(value))
    before = (
        (f"{value} {plural} ago", 0.5),
        (f"{WORDS[value]} {plural} ago", 0.3),
        (f"{value} {plural} earlier", 0.2),
    )
    ahead = (
        (f"in {value} {plural}", 0.5),
        (f"in {WORDS[value]} {plural}", 0.3),
        (f"{value} {plural} from now", 0.2),
    )
    canonical = f"{'-' if past else '+'}{value} {PERIODS[period]}"
    return Phrase(source, canonical, before if past else ahead)


def _names(table: str, codes: tuple[str, ...]) -> Callable[[random.Random], Phrase]:
    """Three names in a list: CLDR's own English style and two others."""

    def make(rng: random.Random) -> Phrase:
        chosen = rng.sample(codes, 3)
        local = [cldr.name(table, code, SOURCE) for code in chosen]
        a, b, c = (cldr.name(table, code, TARGET) for code in chosen)
        return Phrase(
            lists.format_list(local, locale=SOURCE),
            f"[{a}; {b}; {c}]",
            ((f"{a}, {b}, and {c}", 0.5), (f"{a}, {b} and {c}", 0.3), (f"{a}, {b} & {c}", 0.2)),
        )

    return make


PHRASES: tuple[Callable[[random.Random], Phrase], ...] = (
    _date,
    _weekday,
    _days,
    _time,
    _money,
    _percent,
    _amount,
    _relative,
    _names("languages", LANGUAGES),
    _names("territories", TERRITORIES),
)


def _ordinal(number: int) -> str:
    if 10 <= number % 100 <= 20:
        return f"{number}th"
    return f"{number}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th') }"
