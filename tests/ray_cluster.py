"""A Ray cluster on loopback for tests: a head without cores and two workers of one core each."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks.engines import cluster

WORKERS = ("1", "2")


@pytest.fixture(scope="module")
def workers() -> Iterator[Path]:
    """The folder of the workers' folders. The head of the cluster has no core to work on."""
    if find_spec("ray") is None:  # not imported yet: Ray reads its settings then
        pytest.skip("no Ray here: `make extras`")
    with (
        tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as short,
        cluster(Path(short), len(WORKERS)),
    ):
        yield Path(short)
