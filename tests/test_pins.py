"""The pinned packages are what the project asks for, whole, on every Python that it runs on."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import metadata, requires
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PYTHONS = ("3.11", "3.12")


def pins(file: str) -> dict[str, Requirement]:
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    found = [Requirement(line) for line in lines if not line.startswith("#")]
    by_name = {canonicalize_name(pin.name): pin for pin in found}
    assert len(by_name) == len(found)
    return by_name


OPTIONAL = dict(PROJECT["optional-dependencies"])
OF_THE_PEERS = OPTIONAL.pop("bench")  # installed by `make bench` alone
DEVELOPMENT = OPTIONAL.pop("dev")
PINS = {file: pins(file) for file in ("requirements.lock", "requirements-extras.lock")}
ASKED = {
    "requirements.lock": [*PROJECT["dependencies"], *DEVELOPMENT],
    "requirements-extras.lock": [text for extra in OPTIONAL.values() for text in extra],
}
ALL = {name: pin for lock in PINS.values() for name, pin in lock.items()}
LOCKED = {name: str(pin.specifier).removeprefix("==") for name, pin in ALL.items()}
# Some are pinned for certain versions of Python alone.
HERE = {name for name, pin in ALL.items() if pin.marker is None or pin.marker.evaluate()}
# Packages that torch's build for CUDA brings along. Which build it is, is chosen where it is
# installed, so they are not locked.
OF_THE_BUILD = re.compile(r"nvidia-(?!ml-py).*|cuda-.*|triton")
EXTRAS = pytest.param(
    "requirements-extras.lock",
    marks=pytest.mark.skipif(find_spec("ray") is None, reason="no extras here: `make extras`"),
)
LOCKS = ["requirements.lock", EXTRAS]


def needed(lock: str, python: str) -> dict[str, list[Requirement]]:
    """Every package that a lock's requirements need on that Python, and what is asked of it.

    What a package needs in turn is read from the installed packages, which are the locked ones.
    """
    asked: dict[str, list[Requirement]] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [Requirement(text) for text in ASKED[lock]]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        asked.setdefault(name, []).append(requirement)
        for extra in {"", *requirement.extras}:
            if (name, extra) not in seen and name in HERE:
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


def test_every_version_in_the_locks_is_exact() -> None:
    assert all(re.fullmatch(r"==[0-9a-z.]+", str(pin.specifier)) for pin in ALL.values())


def test_no_package_is_in_both_locks() -> None:
    assert not set.intersection(*map(set, PINS.values()))


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("lock", LOCKS)
def test_the_locks_hold_all_that_is_needed_in_a_version_that_is_asked_for(lock, python) -> None:
    wrong = [
        f"{requirement}, locked: {LOCKED.get(name)}"
        for name, requirements in needed(lock, python).items()
        for requirement in requirements
        if name not in LOCKED or not requirement.specifier.contains(LOCKED[name], prereleases=True)
    ]
    assert wrong == []


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_holds_nothing_that_nobody_needs(lock: str) -> None:
    assert set(PINS[lock]) - {name for python in PYTHONS for name in needed(lock, python)} == set()


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_package_runs_on_that_python(lock: str, python: str) -> None:
    refusing = [
        name
        for name in HERE & set(PINS[lock])
        if not SpecifierSet(metadata(name).get("Requires-Python", "")).contains(f"{python}.1")
    ]
    assert refusing == []


@pytest.mark.parametrize("lock", LOCKS)
def test_what_is_installed_is_what_is_locked(lock: str) -> None:
    names = HERE & set(PINS[lock])
    installed = {name: metadata(name)["Version"].split("+")[0] for name in names}
    assert installed == {name: LOCKED[name] for name in names}


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
    for requirement in OF_THE_PEERS:
        assert f" {requirement}" in MAKEFILE
