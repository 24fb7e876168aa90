"""The one exception whose message is written for the user: what is wrong, where, and the remedy.

And how text from outside is shown: a file's contents must not steer the terminal that a message is
printed on, nor the page that quotes it.
"""

import errno
import re

# Marks that reorder what stands beside them (Unicode 15, UAX #9); joiners of scripts are none
_REORDERING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_SHOWN = {
    **{code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\t\n"},  # U+2400: ␀
    **{code: f"⟨U+{code:04X}⟩" for code in (*range(0x7F, 0xA0), *map(ord, _REORDERING))},
    **dict.fromkeys(range(0xD800, 0xE000), "\ufffd"),  # half of a UTF-16 pair
}


class UserError(Exception):
    """Commands print its message alone, without a traceback, and exit with status 2."""


class UnreachableError(Exception):
    """The network did not answer. The input may be right, and another attempt may go well."""


def refusal(error: BaseException) -> type[Exception]:
    """What a library's error about something elsewhere is: `UnreachableError`, or a `UserError`.

    By the names of its kinds and of those that it came from, whatever library they are of. Being
    told to stay offline is an answer.
    """
    kinds, said = set[str](), ""
    seen: BaseException | None = error
    while seen is not None:
        kinds |= {kind.__name__ for kind in type(seen).__mro__}
        said += repr(seen)  # `datasets` names what it came from in its message alone
        seen = seen.__cause__ or seen.__context__
    unanswered = kinds & _NETWORK and "OfflineModeIsEnabled" not in said
    return UnreachableError if unanswered else UserError


# Of the standard library, requests and httpx
_NETWORK = {"ConnectionError", "TimeoutError", "Timeout", "TransportError"}


def printable(text: str) -> str:
    """The text with signs in place of what is not to be seen: ESC is ␛, and no line is reordered.

    Tabs and ends of lines stay.
    """
    return text.translate(_SHOWN)


# errno -> what is wrong, and what to do. Whatever was being written appears whole or not at all.
_DISK = {
    errno.ENOSPC: "the disk is full; free some of it (`make clean` forgets .scratch)",
    errno.EDQUOT: "the quota of the disk is used up; free some of it",
    errno.EFBIG: "the file is larger than may be written here; raise the limit (`ulimit -f`)",
    errno.EROFS: "the folder is read-only; make it writable",
    errno.EACCES: "there is no permission; make it writable",
    errno.EPERM: "there is no permission; make it writable",
}
# As libraries in Rust write it at the end of a message of their own
_OS_ERROR = re.compile(r"\(os error (\d+)\)")
# As SQLite, in which DVC keeps what it knows of files, says it
_SQLITE = {
    "database or disk is full": errno.ENOSPC,
    "attempt to write a readonly database": errno.EROFS,
}
# As PyTorch's allocators of a device and of the host write it
_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


def out_of_memory(error: BaseException) -> bool:
    """Whether memory was refused, on the host or on a device."""
    said = str(error)
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in said for words in _MEMORY)
    )


def fault_of_the_machine(error: BaseException) -> str | None:
    """A message for people where disk, memory, network or a killed process is the reason."""
    if isinstance(error, ChildProcessError | UnreachableError):
        return str(error)
    if out_of_memory(error):
        return (
            f"out of memory ({error}): fewer rows at once (evaluate.batch_size, micro_batch_size), "
            "smaller max_new_tokens, or docs/memory.md; what was finished is kept"
        )
    number = _number_of(error)
    if number not in _DISK:
        return None
    return f"{error}: {_DISK[number]}, and run the same command again"


def _number_of(error: BaseException) -> int | None:
    """Its errno, also where a library has put it in words."""
    if isinstance(error, OSError):
        return error.errno
    named = _OS_ERROR.search(str(error))
    return int(named[1]) if named else _SQLITE.get(str(error))
