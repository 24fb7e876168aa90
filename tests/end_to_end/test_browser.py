"""The form of `experiment` in a browser, on a real server: K is changed, the report opened."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.orchestration.server import HOST
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


def test_an_experiment_is_started_from_its_form_and_its_report_is_read(root, tmp_path) -> None:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
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
        with api.sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
            page = browser.new_page(viewport={"width": 1400, "height": 1200})
            page.set_default_timeout(PATIENCE)
            page.goto(f"http://{HOST}:{port}/deployments")
            page.get_by_role("link", name="experiment", exact=True).click()
            page.get_by_role("button", name="Run", exact=True).click()
            page.get_by_text("Custom run").click()
            page.get_by_role("button", name="Add item").click()
            name, override, *_ = page.locator("textarea").all()
            name.fill("k5")
            override.fill("methods.skd.acceptance.value=5")
            page.get_by_role("button", name="Submit").click()
            page.locator("a[href*='/runs/flow-run/']").first.click()
            page.get_by_text("Completed", exact=True).first.wait_for()
            page.get_by_text("Artifacts", exact=True).click()
            page.locator("a[href*='/artifacts/artifact/']", has_text="report").click()
            page.get_by_text("K is 5").wait_for()
            page.screenshot(path=tmp_path / "report.png")
            browser.close()
    finally:
        ui.send_signal(signal.SIGTERM)
        ui.wait(600)
    assert "k5" in dvc("exp", "list", "--name-only", root=root)
    assert "value: 1" in (root / "params.yaml").read_text()
    assert not (root / "reports").exists()
