"""What talks to the server ends when its caller is asked to, whatever signal asks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from prefect.settings import PREFECT_API_URL

from pipelines.orchestration import server
from tests.pipelines.conftest import chain, processes_in, wait_for

ROOT = Path(__file__).parents[2]
CALLER = """
import sys
from pipelines.orchestration import server
server.PATIENCE = int(sys.argv[1])
sys.exit(server.call(sys.argv[3:], sys.argv[2]))
"""


def caller(root: Path, patience: int, url: str, *words: str) -> subprocess.Popen[bytes]:
    with (root / "said").open("w") as said:
        return subprocess.Popen(
            [sys.executable, "-c", CALLER, str(patience), url, *words],
            cwd=root,
            env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
            stdout=said,
            stderr=subprocess.STDOUT,
            # as `make ui &` in a script starts it
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN) and None,
        )


@pytest.mark.usefixtures("prefect_server")
def test_a_served_deployment_ends_on_sigterm_with_all_it_awaits(project) -> None:
    root = project(chain())
    url = str(PREFECT_API_URL.value()).removesuffix("/api")
    process = caller(root, 60, url, "pipelines.orchestration.flow", "serve")
    wait_for(lambda: "prefect deployment run" in (root / "said").read_text())
    process.send_signal(signal.SIGTERM)
    assert process.wait(600) == 0
    assert "never awaited" not in (root / "said").read_text()
    assert processes_in(root) == []


def test_what_does_not_end_when_it_is_asked_to_is_ended(tmp_path) -> None:
    (tmp_path / "stubborn.py").write_text(
        "import signal, time\nsignal.signal(2, signal.SIG_IGN)\nprint('here')\ntime.sleep(600)\n"
    )
    process = caller(tmp_path, 1, "http://127.0.0.1:1", "stubborn")
    wait_for(lambda: "here" in (tmp_path / "said").read_text())
    process.send_signal(signal.SIGTERM)
    assert process.wait(600) == -signal.SIGKILL % 256
    assert processes_in(tmp_path) == []


def test_the_server_listens_on_loopback_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    with server.running() as url:
        children = psutil.Process().children(recursive=True)
        places = {
            place.laddr
            for child in children
            for place in child.net_connections()
            if place.status == psutil.CONN_LISTEN
        }
    assert {place.ip for place in places} == {"127.0.0.1"}
    assert int(url.rpartition(":")[2]) in {place.port for place in places}


OWNER = """
import sys
from pipelines.orchestration import server
with server.running() as url:
    print(url, flush=True)
    sys.exit(server.call(["stubborn"], url))
"""


def test_what_talks_to_a_server_ends_when_the_server_is_gone(tmp_path) -> None:
    (tmp_path / "stubborn.py").write_text(
        "import time\nprint('here', flush=True)\ntime.sleep(600)\n"
    )
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-c", OWNER],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=said,
            stderr=subprocess.STDOUT,
        )
    wait_for(lambda: "here" in (tmp_path / "said").read_text())
    below = psutil.Process(process.pid).children(recursive=True)
    servers = [one for one in below if {"prefect", "server", "start"} <= {*one.cmdline()}]
    assert servers
    servers[-1].kill()  # those before it wait for it
    assert process.wait(600) != 0
    assert "the Prefect server has ended" in (tmp_path / "said").read_text()
    wait_for(lambda: processes_in(tmp_path) == [])
