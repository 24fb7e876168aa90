"""A Ray cluster on loopback for tests: a head without cores and two workers of one core each."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

WORKERS = ("a", "b")


@pytest.fixture(scope="module")
def workers() -> Iterator[Path]:
    """The folder of the workers' folders. The head of the cluster has no core to work on."""
    with (
        pytest.MonkeyPatch.context() as patched,
        tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as short,
    ):
        patched.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patched.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        patched.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # loopback; read by the import
        ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")
        from ray.cluster_utils import Cluster

        cluster = Cluster()
        for name in ("head", *WORKERS):
            cluster.add_node(
                num_cpus=0 if name == "head" else 1,
                temp_dir=str(Path(short) / name),  # short, since sockets lie below it
                include_dashboard=False,
            )
        patched.setenv("RAY_ADDRESS", cluster.address)
        yield Path(short)
        ray.shutdown()
        cluster.shutdown()
