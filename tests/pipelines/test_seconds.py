"""A stage's seconds are those of its own process, whatever becomes of the date."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
# The date runs away while the process works.
CHILD = """
import time
import pipelines
began = time.perf_counter()
from pipelines.stages import command
time.time = lambda: 1e9 * command.seconds()
time.sleep(0.5)
own = time.perf_counter() - began
print(command.seconds(), own)
"""


def test_a_process_counts_its_start_and_its_imports_and_nothing_else() -> None:
    before = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", CHILD], cwd=ROOT, capture_output=True, text=True, check=True
    )
    around = time.perf_counter() - before
    said, own = map(float, done.stdout.split())
    assert own - 0.01 <= said <= around + 0.01  # hundredths are what it is rounded to


def test_the_interpreters_start_is_measured_by_the_process_itself() -> None:
    """What it worked before its first line here counts, however it was started."""
    work = "import time\nwhile time.process_time() < 1.0: pass\n"
    child = work + "from pipelines.stages import command\nprint(command.seconds())"
    done = subprocess.run(
        [sys.executable, "-c", child], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert float(done.stdout) >= 1.0
