"""What a stage's process is given before it begins to work."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CAPACITY = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
# A worker of a stage is a child of its process
CHILD = f"import os; print(os.environ.get({CAPACITY!r}))"
STAGE = f"""
import subprocess, sys
from pipelines.stages.command import run_command
run_command(lambda: subprocess.run([sys.executable, "-c", {CHILD!r}], check=True) and None)
"""


@pytest.mark.parametrize(("asked", "given"), [(None, "64"), ("7", "7")])
def test_workers_keep_few_shapes_of_products_unless_the_user_asks_for_more(asked, given) -> None:
    """oneDNN's own 1,024 take 0.8 GiB of a process in bf16 (docs/memory.md)."""
    environment = {name: value for name, value in os.environ.items() if name != CAPACITY}
    environment |= {} if asked is None else {CAPACITY: asked}
    ran = subprocess.run(
        [sys.executable, "-c", STAGE], env=environment, capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == given
