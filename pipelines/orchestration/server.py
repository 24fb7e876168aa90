"""A Prefect server with its UI, on this machine alone, for as long as the caller lives.

The server is a child in a session of its own, so that a Ctrl-C in the terminal does not
reach it, and it ends with the caller, whatever ends that. What talks to it runs in a process
of its own and ends first: at its exit prefect sends what it still holds, and waits.
This module starts processes; it knows neither the flow nor prefect's Python API.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from pipelines.orchestration import runner
from skd.errors import UserError

HOST = "127.0.0.1"  # loopback: the UI asks for no password
LOG = Path(".dvc/tmp/prefect-server.log")
START_SECONDS = 120.0  # the first start migrates a fresh database

# Seconds, whole. More than the 30 that prefect grants a run that is cancelled.
PATIENCE = 60

# Nothing is reported to anyone. Both names: the server reads one, the client the other.
PRIVATE = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}


@contextmanager
def running(port: int | None = None) -> Iterator[str]:
    """A healthy server on `port` (None: a free one); yields its address, without `/api`.

    Raises `UserError` when the port is taken or the server does not start.
    """
    port = _usable(port)
    url = f"http://{HOST}:{port}"
    LOG.parent.mkdir(parents=True, exist_ok=True)
    lifeline = runner.Lifeline()
    with LOG.open("w", encoding="utf-8") as log:
        server = runner.start(
            [
                sys.executable,
                "-m",
                "prefect",
                "server",
                "start",
                f"--host={HOST}",
                f"--port={port}",
            ],
            lifeline,
            cwd=Path.cwd(),
            # The browser's address for the API: its default assumes port 4200.
            env=os.environ | PRIVATE | {"PREFECT_UI_API_URL": f"{url}/api"},
            stdout=log,
        )
    wanted = threading.Event()
    wanted.set()
    try:
        _wait_until_healthy(port, server)
        threading.Thread(target=_watch, args=(server, wanted), daemon=True).start()
        yield url
    finally:
        wanted.clear()
        lifeline.end()
        server.wait()
        lifeline.close()


def _watch(server: subprocess.Popen[str], wanted: threading.Event) -> None:
    """End this process, and with it what talks to the server, where the server ends before.

    A flow that has lost its server tries for minutes to reach it and fails in the end.
    """
    server.wait()
    if wanted.is_set():
        print(
            f"the Prefect server has ended before its time (its output is in {LOG}): what finished "
            "is kept, run the same command again",
            file=sys.stderr,
        )
        os.kill(os.getpid(), signal.SIGTERM)


def _usable(port: int | None) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port or 0))
        except (OSError, OverflowError) as error:
            raise UserError(
                f"port {port} of {HOST} cannot be used ({error}); "
                "end what listens there or choose another: --port N"
            ) from None
        return int(probe.getsockname()[1])


def _wait_until_healthy(port: int, server: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        if _healthy(port):
            return
        time.sleep(0.2)
    raise UserError(f"the Prefect server did not start; its output is in {LOG}")


def _healthy(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", "/api/health")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def call(words: list[str], url: str) -> int:
    """Run `python -m WORDS` against the server at `url`; return its exit status.

    A signal that ends this process ends the command and all it started, within `PATIENCE`.
    """
    groups: list[int] = []
    asked: list[int] = []

    def send(signum: int) -> None:
        for group in groups:  # a deployment's runner alone would first wait for its runs
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signum)

    def ask(signum: int, _frame: FrameType | None) -> None:
        asked.append(signum)
        signal.alarm(PATIENCE)
        # Whatever came here: on SIGTERM prefect's runner calls its own `stop` without awaiting it
        # and leaves its event loop at any point, where it may hang.
        send(signal.SIGINT)

    def insist(_signum: int, _frame: FrameType | None) -> None:
        send(signal.SIGKILL)

    signal.signal(signal.SIGALRM, insist)
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, ask)
    env = os.environ | PRIVATE | {"PREFECT_API_URL": f"{url}/api"}
    child = subprocess.Popen([sys.executable, "-m", *words], env=env, start_new_session=True)
    groups.append(child.pid)
    if asked:  # before there was anybody to ask
        send(signal.SIGINT)
    return child.wait()
