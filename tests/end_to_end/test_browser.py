"""Experiments on a real server: from the form in a browser, and two at once."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipelines.orchestration.server import HOST
from pipelines.orchestration.worktree import experiment_commit
from tests.pipelines.conftest import Stages, dvc, empty_project, project, wait_for

__all__ = ["empty_project", "project"]  # fixtures
ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium")
# Debian's; nothing of it asks the network for anything
OPTIONS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PATIENCE = 300_000  # milliseconds, for a busy machine
WRITE = "mkdir -p reports && echo 'K is ${methods.skd.acceptance.value}' > reports/report.md"
GRAPH: Stages = {
    "report": {
        "cmd": WRITE,
        "outs": [{"reports/report.md": {"cache": False}}],
    }
}
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


@pytest.fixture
def root(project, tmp_path, monkeypatch) -> Path:
    folder = project(GRAPH)
    (folder / "params.yaml").write_text("methods: {skd: {acceptance: {value: 1}}}\n")
    (folder / ".dvc" / "config").write_text("")
    (folder / ".gitignore").write_text(".scratch\nsaid\n")
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "t")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "t@localhost")
    for words in (["init", "-q"], ["add", "--all"], ["commit", "-qm", "start"]):
        subprocess.run(["git", *words], cwd=folder, check=True)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return folder


@contextmanager
def served(root: Path) -> Iterator[str]:
    """The address of a server with the deployments of this project."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    said = root / "said"
    with said.open("w") as out:
        ui = subprocess.Popen(
            [sys.executable, "-m", "pipelines.orchestration.flow", "ui", "--port", str(port)],
            env={k: v for k, v in os.environ.items() if k != "PREFECT_API_URL"},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_for(lambda: "prefect deployment run" in said.read_text())
        yield f"http://{HOST}:{port}"
    finally:
        ui.send_signal(signal.SIGTERM)
        ui.wait(600)


def test_an_experiment_is_started_from_its_form_and_its_report_is_read(root, tmp_path) -> None:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with served(root) as address, api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        page = browser.new_page(viewport={"width": 1400, "height": 1200})
        page.set_default_timeout(PATIENCE)
        page.goto(f"{address}/deployments")
        page.get_by_role("link", name="experiment", exact=True).click()
        page.get_by_role("button", name="Run", exact=True).click()
        page.get_by_text("Custom run").click()
        page.get_by_role("button", name="Add item").click()
        fields = page.locator("textarea")  # the name, then the first item once it is drawn
        fields.nth(0).fill("k5")
        fields.nth(1).fill("methods.skd.acceptance.value=5")
        page.get_by_role("button", name="Submit").click()
        page.locator("a[href*='/runs/flow-run/']").first.click()
        page.get_by_text("Completed", exact=True).first.wait_for()
        page.get_by_text("Artifacts", exact=True).click()
        page.locator("a[href*='/artifacts/artifact/']", has_text="report").click()
        page.get_by_text("K is 5").wait_for()
        page.screenshot(path=tmp_path / "report.png")
        browser.close()
    assert "k5" in dvc("exp", "list", "--name-only", root=root)
    assert "value: 1" in (root / "params.yaml").read_text()
    assert not (root / "reports").exists()


def test_two_experiments_run_at_once_and_both_are_saved(root, tmp_path) -> None:
    """Each one's stage waits until the other one's has begun."""
    begun = tmp_path / "begun"
    begun.mkdir()
    meet = f"touch {begun}/${{methods.skd.acceptance.value}}; cd {begun}; " + (
        "for wait in $(seq 2700); do [ -e 5 ] && [ -e 25 ] && exit; sleep 0.1; done; exit 1"
    )
    graph = {"report": {**GRAPH["report"], "cmd": f"{WRITE}; ({meet})"}}
    (root / "dvc.yaml").write_text(json.dumps({"stages": graph}))
    run = [sys.executable, "-m", "prefect", "deployment", "run", "--watch"]
    with served(root) as address:
        env = {**os.environ, "PREFECT_API_URL": f"{address}/api"}
        running = []
        for k in (5, 25):
            asked = {"name": f"k{k}", "overrides": [f"methods.skd.acceptance.value={k}"]}
            words = [*run, "skd-experiment/experiment", "--params", json.dumps(asked)]
            running.append(subprocess.Popen(words, env=env, stdout=subprocess.PIPE, text=True))
        said = [one.communicate(timeout=PATIENCE / 1000)[0] for one in running]
    assert [one.returncode for one in running] == [0, 0], said
    for k in (5, 25):
        made = f"{experiment_commit(root, f'k{k}')}:reports/report.md"
        assert subprocess.check_output(["git", "show", made], cwd=root) == f"K is {k}\n".encode()
