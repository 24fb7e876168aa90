"""The pinned packages are what the project asks for, whole, on every Python that it runs on."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import metadata, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PYTHONS = ("3.11", "3.12")
LINES = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
PINS = [Requirement(line) for line in LINES if not line.startswith("#")]
LOCKED = {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in PINS}
# Some are pinned for certain versions of Python alone.
INSTALLED = [
    canonicalize_name(pin.name) for pin in PINS if pin.marker is None or pin.marker.evaluate()
]
WANTED = [Requirement(text) for text in PROJECT["dependencies"]]
WANTED += [Requirement(text) for text in PROJECT["optional-dependencies"]["dev"]]


# Packages that torch's build for CUDA brings along. Which build it is, is chosen where it is
# installed, so they are not locked.
OF_THE_BUILD = re.compile(r"nvidia-.*|cuda-.*|triton")


def needed(python: str) -> dict[str, list[Requirement]]:
    """Every package that the project needs on that Python, and what is asked of it.

    What a package needs in turn is read from the installed packages, which are the locked ones.
    """
    asked: dict[str, list[Requirement]] = {}
    seen: set[tuple[str, str]] = set()
    waiting = list(WANTED)
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        asked.setdefault(name, []).append(requirement)
        for extra in {"", *requirement.extras}:
            if (name, extra) not in seen and name in INSTALLED:
                seen.add((name, extra))
                here = {
                    "python_version": python,
                    "python_full_version": f"{python}.0",
                    "extra": extra,
                }
                parts = [Requirement(text) for text in requires(name) or ()]
                waiting += [
                    part
                    for part in parts
                    if (part.marker is None or part.marker.evaluate(here))
                    and not OF_THE_BUILD.fullmatch(part.name)
                ]
    return asked


def test_every_version_in_the_lock_is_exact() -> None:
    assert all(re.fullmatch(r"==[0-9a-z.]+", str(pin.specifier)) for pin in PINS)
    assert len(LOCKED) == len(PINS)


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_holds_all_that_is_needed_in_a_version_that_is_asked_for(python: str) -> None:
    wrong = [
        f"{requirement}, locked: {LOCKED.get(name)}"
        for name, requirements in needed(python).items()
        for requirement in requirements
        if name not in LOCKED or not requirement.specifier.contains(LOCKED[name], prereleases=True)
    ]
    assert wrong == []


def test_the_lock_holds_nothing_that_nobody_needs() -> None:
    assert set(LOCKED) - {name for python in PYTHONS for name in needed(python)} == set()


@pytest.mark.parametrize("python", PYTHONS)
def test_every_locked_package_runs_on_that_python(python: str) -> None:
    refusing = [
        name
        for name in INSTALLED
        if not SpecifierSet(metadata(name).get("Requires-Python", "")).contains(f"{python}.1")
    ]
    assert refusing == []


def test_what_is_installed_is_what_is_locked() -> None:
    installed = {name: metadata(name)["Version"].split("+")[0] for name in INSTALLED}
    assert installed == {name: LOCKED[name] for name in INSTALLED}


def test_make_accepts_the_pythons_that_the_project_asks_for() -> None:
    (check,) = re.findall(r"^SUPPORTED := (.*)$", MAKEFILE, re.MULTILINE)
    asked_for = SpecifierSet(PROJECT["requires-python"])
    minors = range(8, 16)
    accepted = [
        subprocess.run(
            [sys.executable, "-c", f"import sys; sys.version_info = (3, {minor}, 1); {check}"],
            check=False,
        ).returncode
        == 0
        for minor in minors
    ]
    assert accepted == [asked_for.contains(f"3.{minor}.1") for minor in minors]
    assert [f"3.{m}" for m, taken in zip(minors, accepted, strict=True) if taken] == list(PYTHONS)


@pytest.mark.parametrize("python", ["", "false"])
def test_make_says_which_python_is_needed(tmp_path: Path, python: str) -> None:
    (tmp_path / "requirements.lock").touch()
    done = subprocess.run(
        ["make", "-f", str(ROOT / "Makefile"), f"PYTHON={python}", "install"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert f"Python {' or '.join(PYTHONS)} is needed" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_prose_and_tools_name_the_same_pythons() -> None:
    assert f"Python {' or '.join(PYTHONS)}," in (ROOT / "README.md").read_text(encoding="utf-8")
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    assert tools["mypy"]["python_version"] == PYTHONS[0]
    assert tools["ruff"]["target-version"] == f"py{PYTHONS[0].replace('.', '')}"


def test_make_bench_installs_what_the_extra_asks_for() -> None:
    for requirement in PROJECT["optional-dependencies"]["bench"]:
        assert f" {requirement}" in MAKEFILE
