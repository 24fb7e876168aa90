"""A copy of this project in a folder of its own, under another profile, and a run in it.

For `make smoke` and the end-to-end tests: the copy holds what git tracks, as it stands in
the working tree, but nothing that a run made. The original is left alone.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from pipelines.profile import use
from pipelines.stages.command import run_command

ROOT = Path(__file__).resolve().parent.parent


def copy_project(target: Path, profile: str) -> None:
    """Fill `target` with a fresh repository of the tracked files, set to `profile`."""
    shutil.rmtree(target, ignore_errors=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        made = name == "dvc.lock" or name.startswith(("metrics/", "reports/"))
        if not made and (ROOT / name).is_file():  # one deleted in the working tree is still listed
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    subprocess.run(["git", "init", "-q"], cwd=target, check=True)
    use(profile, target)


def repro(target: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m pipelines.repro` in the copy; its output goes to this process's."""
    command = [sys.executable, "-m", "pipelines.repro", *arguments]
    return subprocess.run(command, cwd=target, text=True, check=False)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="smoke")
    parser.add_argument("--folder", type=Path, default=Path(".scratch/smoke"))
    arguments = parser.parse_args(argv)
    copy_project(arguments.folder, arguments.profile)
    status = repro(arguments.folder).returncode
    if status == 0:
        print(f"report: {arguments.folder / 'reports/report.md'}")
    sys.exit(status)


if __name__ == "__main__":
    run_command(main)
