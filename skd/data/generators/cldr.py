"""CLDR entries as Babel gives them, each read once: names, unit and currency patterns.

Everything here is text of one language; what makes a phrase or a translation is
`translation`'s matter.
"""

from __future__ import annotations

import datetime
from functools import cache

from babel import Locale, dates, lists, numbers, units

SOURCE, TARGET = "as", "en"

# One of each period as the timedelta that Babel turns back into that period.
ONE = {
    "hour": datetime.timedelta(hours=1),
    "day": datetime.timedelta(days=1),
    "week": datetime.timedelta(weeks=1),
    "month": datetime.timedelta(days=30.4375),
}


@cache
def locale(language: str) -> Locale:
    return Locale(language)


@cache
def name(table: str, code: str, language: str) -> str:
    """The name of a language (`table` is "languages") or a territory ("territories")."""
    return str(getattr(locale(language), table)[code])


@cache
def month(number: int, language: str = TARGET) -> str:
    return str(locale(language).months["format"]["wide"][number])


@cache
def day_name(number: int) -> str:
    """English name of a weekday; 0 is Monday."""
    return str(locale(TARGET).days["format"]["wide"][number])


@cache
def unit(key: str, length: str, language: str) -> str:
    """The unit's plural pattern with `{}` for the number, read off a rendered 5."""
    text = units.format_unit(5, key, length=length, locale=language)
    return str(text).replace("5", "{}", 1).replace("\xa0", " ")


@cache
def currency(amount: int, code: str, language: str) -> str:
    """An amount with the currency's name, without decimals."""
    return str(
        numbers.format_currency(
            amount, code, "#,##0", language, format_type="name", currency_digits=False
        )
    )


@cache
def distance(period: str, sign: int) -> str:
    """How Assamese says that {} periods lie ahead (+1) or back (-1), read off a rendered 5."""
    delta = 5 * sign * ONE[period]
    text = dates.format_timedelta(
        delta, granularity=period, threshold=99, add_direction=True, locale=SOURCE
    )
    return str(text).replace("5", "{}", 1)


@cache
def join(style: str) -> str:
    """How Assamese joins two phrases; both are `{}`. `style` is Babel's: "standard" or "or"."""
    return str(lists.format_list(["{}", "{}"], style=style, locale=SOURCE))
