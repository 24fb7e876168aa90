"""The helper process of `skd.tasks.symbolic`: reads pairs of answers, says which are equal.

It runs alone, as `python -P algebra.py`, and answers one JSON line after the other: ["1/2",
"0.5"] -> 1. math-verify's LaTeX grammar reads the answers; its reader of plain expressions,
which evaluates text as Python, is never called. Sympy evaluates text too, even a number, and
that is taken away here. Knows no task and no file.
"""

from __future__ import annotations

import importlib
import json
import re
import resource
import sys
from typing import Any

CPU_SECONDS = 3  # of one comparison
MEMORY = 2**30  # bytes of address space
READY = "ready"
NUMBER = re.compile(r"(?P<whole>\d+)(?P<rest>\.\d*|(?:\.\d*)?[eE][+-]?\d{1,3})?|\.\d+")
DECIMALS = 4  # as `skd.tasks.arithmetic.TOLERANCE` for plain numbers


def seal() -> None:
    """Take Python's evaluation of text away from sympy, for the rest of this process.

    `sympy.Number("12")` goes through `parse_expr`, which evals. The grammar lets only numbers
    reach it, and numbers are all that its replacement reads.
    """
    import sympy.parsing.sympy_parser as parser

    importlib.import_module("sympy.physics.units")  # makes its names by `parse_expr`, once
    parser.parse_expr = read_number
    parser.eval_expr = _refuse


def read_number(text: str, *_: Any, **__: Any) -> Any:
    """Stands in for `parse_expr`. Raises `ValueError` for everything but a plain number."""
    import sympy

    match = NUMBER.fullmatch(text.strip())
    if match is None:
        raise ValueError("only plain numbers are read")
    return sympy.Integer(match[0]) if match["whole"] == match[0] else sympy.Float(match[0])


def _refuse(*_: Any, **__: Any) -> Any:
    raise ValueError("text is not evaluated")


def same(expected: str, given: str) -> bool:
    """Whether both texts are mathematics and equal; what the grammar cannot read is not."""
    from math_verify import LatexExtractionConfig, parse, verify

    # The limits on time are this process's, so the library's own alarms stay off.
    sides = [
        parse(
            rf"\boxed{{{text}}}",
            [LatexExtractionConfig(boxed_match_priority=0)],
            fallback_mode="no_fallback",
            parsing_timeout=None,
        )
        for text in (expected, given)
    ]
    if not all(sides):
        return False
    return bool(verify(*sides, float_rounding=DECIMALS, timeout_seconds=None))


def limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform != "linux":  # others refuse the limit, or do not keep it
        return
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    ceiling = MEMORY if most == resource.RLIM_INFINITY else min(MEMORY, most)
    resource.setrlimit(resource.RLIMIT_AS, (ceiling, most))


def limit_time() -> None:
    """The kernel ends this process after `CPU_SECONDS` more, in a loop of C code too.

    So a comparison that hangs ends even when nobody is left who would wait for it.
    """
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    soon = int(used.ru_utime + used.ru_stime) + CPU_SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (soon, most))


def main() -> None:
    replies, sys.stdout = sys.stdout, sys.stderr  # a library that prints must not answer
    limit_memory()
    seal()
    same("1", "1")  # imports what a comparison needs
    print(READY, file=replies, flush=True)
    for line in sys.stdin:
        limit_time()
        print(int(same(*json.loads(line))), file=replies, flush=True)


if __name__ == "__main__":
    main()
