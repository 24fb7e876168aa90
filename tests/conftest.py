"""Tiny models of many families, fp64 where tokens are compared."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("DVC_NO_ANALYTICS", "1")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")

from pathlib import Path

# Prefect closes every logging handler when it is first imported, and absl's (rouge-score loads
# it) then closes the stream it wrote to, which is pytest's: import Prefect before it.
import prefect.main  # noqa: F401
import pytest
import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(1)
# How long an example takes says how busy the machine is, and nothing of the code. The same examples
# each time: a failure on one machine is one on the next.
settings.register_profile(
    "no_clock", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("no_clock")

ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole pipelines last: what a quick test can tell is told first.

    Where files are tested side by side the longest one begins, so that no core waits for it.
    """
    side_by_side = "PYTEST_XDIST_WORKER" in os.environ
    items.sort(key=lambda item: ("end_to_end" in item.path.parts) is not side_by_side)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data beside the repository; tests that need it are skipped without."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no real data beside the repository")
    return folder
