"""Real commands on bad input, run in this process and watched from outside.

Whatever the input, a command ends with status 0, or with status 2, one message, and every file as
it was. Any other exception is the test's failure.
"""

from __future__ import annotations

import contextlib
import gc
import io
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings

from pipelines.stages.command import run_command

# Inputs of the whole suite; `SKD_INPUTS=1000 pytest tests/safety` is the record.
INPUTS = int(os.environ.get("SKD_INPUTS", "120"))
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")
# How many inputs were refused, ran, or were shown as text
COUNTED: Counter[str] = Counter()


def inputs(share: float) -> settings:
    """This share of the suite's inputs, the same ones in every run."""
    return settings(
        max_examples=max(1, round(share * INPUTS)),
        derandomize=True,
        phases=[Phase.generate],  # inputs are small as they are
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@dataclass(frozen=True)
class Ended:
    status: int
    # What the command wrote to standard error
    message: str


def ends_well(main: Callable[[Sequence[str]], object], root: Path, *words: str) -> Ended:
    """Run `main` in `root` and hold it to what stands above.

    The folder around `root` is watched, too: nothing may be written there.
    """
    before = _contents(root.parent)
    output, errors = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
    status = 0
    here = Path.cwd()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        os.chdir(root)
        try:
            run_command(lambda: main(list(words)) and None)
        except SystemExit as end:
            status = int(end.code or 0)
        finally:
            os.chdir(here)
            gc.unfreeze()  # commands freeze what was imported
    COUNTED["refused" if status else "ran"] += 1
    ended = Ended(status, errors.getvalue())
    after = _contents(root.parent)
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    assert not [path for path in changed if not path.is_relative_to(root)], "written outside"
    assert not [path for path in after if path.name.endswith(".partial")], "half written"
    if status == 0:
        return ended
    assert status == 2, ended
    assert changed == set()
    _, error, message = ended.message.rpartition("error: ")
    assert error, ended.message
    assert 0 < len(message.strip()) < 5_000
    assert "Traceback" not in message
    assert not _UNSEEN.search(message), "steers the terminal"
    return ended


def _contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def printed() -> str:
    """How the inputs ended, for the end of the run."""
    total = COUNTED.total()
    return (
        f"{total:,} inputs: {COUNTED['refused']:,} refused with a message, {COUNTED['ran']:,} ran, "
        f"{COUNTED['shown']:,} shown as text"
    )
