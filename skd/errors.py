"""The one exception whose message is written for the user: what is wrong, where, and the remedy.

And how text from outside is shown: a file's contents must not steer the terminal that a message is
printed on, nor the page that quotes it.
"""

# Marks that reorder what stands beside them (Unicode 15, UAX #9); joiners of scripts are none
_REORDERING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_SHOWN = {
    **{code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\t\n"},  # U+2400: ␀
    **{code: f"⟨U+{code:04X}⟩" for code in (*range(0x7F, 0xA0), *map(ord, _REORDERING))},
    **dict.fromkeys(range(0xD800, 0xE000), "\ufffd"),  # half of a UTF-16 pair
}


class UserError(Exception):
    """Commands print its message alone, without a traceback, and exit with status 2."""


def printable(text: str) -> str:
    """The text with signs in place of what is not to be seen: ESC is ␛, and no line is reordered.

    Tabs and ends of lines stay.
    """
    return text.translate(_SHOWN)
