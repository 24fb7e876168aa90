"""An experiment runs beside the workspace, is saved by DVC, and leaves nothing of itself behind."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from pipelines.orchestration import flow, worktree
from skd.errors import UserError
from tests.pipelines.conftest import chain, dvc, ran

# DVC's own use of pygtrie.
pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value will soon:DeprecationWarning")


def git(root: Path, *words: str) -> str:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@localhost", *words]
    return subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def root(project, monkeypatch) -> Path:
    """The toy project, reproduced and committed."""
    stages = chain()
    stages["join"]["metrics"] = [{"score.json": {"cache": False}}]
    stages["join"]["cmd"] += " && cat params.yaml >> ran && echo '{\"score\": 1}' > score.json"
    folder = project(stages)
    for name, value in {"NAME": "t", "EMAIL": "t@localhost"}.items():
        for role in ("AUTHOR", "COMMITTER"):
            monkeypatch.setenv(f"GIT_{role}_{name}", value)
    (folder / ".dvc" / "config").write_text("")
    (folder / ".gitignore").write_text(".scratch\nran\n*.txt\n")
    git(folder, "init", "-q")
    git(folder, "add", "--all")
    dvc("repro", "-q", root=folder)
    ran(folder)
    git(folder, "add", "--all")
    git(folder, "commit", "-qm", "start")
    return folder


def standing(root: Path) -> dict[str, bytes]:
    """Every file of the workspace, and what git says of it."""
    files = [path for path in root.rglob("*") if path.is_file() and path.relative_to(root).parts[0]
             not in (".git", ".dvc", ".scratch")]  # fmt: skip
    found = {str(path): path.read_bytes() for path in files}
    return found | {"status": git(root, "status", "--porcelain").encode()}


def experiments(root: Path) -> set[str]:
    return set(dvc("exp", "list", "--name-only", root=root).split())


def test_it_has_its_own_parameters_and_what_is_not_committed_yet(root) -> None:
    (root / "new").write_text("new")
    (root / "params.yaml").write_text("colours: [red, blue]\ntext: changed\n")
    before = standing(root)
    with worktree.worktree(root, "other", ["colours=[red]", "text=5"]) as folder:
        own = yaml.safe_load((folder / "params.yaml").read_text())
        assert own == {"colours": ["red"], "text": 5}
        assert (folder / "new").read_text() == "new"
        assert (folder / ".scratch").resolve() == (root / ".scratch").resolve()
        assert (folder / "join.txt").read_text() == "hello\nhello\n"  # of DVC's cache
        (folder / "new").write_text("theirs")
    assert standing(root) == before
    assert not folder.exists()
    assert len(git(root, "worktree", "list").splitlines()) == 1


@pytest.mark.usefixtures("prefect_server")
def test_the_flow_saves_it_as_dvcs_experiment(root) -> None:
    before = standing(root)
    state = flow.experiment("k5", ["text=five"], return_state=True)
    assert state.is_completed(), state.message
    assert standing(root) == before
    assert experiments(root) == {"k5"}
    shown = json.loads(dvc("exp", "show", "--json", root=root))
    assert '"five"' in json.dumps(shown)
    dvc("exp", "apply", "k5", root=root)
    assert (root / "join.txt").read_text() == "five\nfive\n"
    again = flow.experiment("k5", ["text=six"], return_state=True)
    assert again.is_failed()
    assert "dvc exp remove k5" in (again.message or "")


@pytest.mark.usefixtures("prefect_server")
def test_a_part_of_the_graph_is_saved_where_the_rest_was_never_made(root) -> None:
    (root / "score.json").unlink()
    state = flow.experiment("part", ["text=part"], ["paint@red"], return_state=True)
    assert state.is_completed(), state.message
    dvc("exp", "apply", "part", root=root)
    assert (root / "red.txt").read_text() == "part\n"


@pytest.mark.usefixtures("prefect_server")
def test_one_that_fails_is_not_saved_and_leaves_no_folder(root) -> None:
    before = standing(root)
    state = flow.experiment("bad", ["colours=[red, green]"], return_state=True)
    assert state.is_failed()
    assert standing(root) == before
    assert experiments(root) == set()
    assert list((root / worktree.EXPERIMENTS).glob("[!.]*")) == []


def test_several_stand_at_once_and_none_twice(root) -> None:
    with (
        worktree.worktree(root, "one", ["text=1"]) as one,
        worktree.worktree(root, "two", ["text=2"]) as two,
    ):
        with pytest.raises(UserError, match="is running"), worktree.worktree(root, "one", []):
            pass
        for folder in (one, two):
            dvc("repro", "-q", root=folder)
            worktree.save(folder, folder.name, ["join"])
    assert experiments(root) == {"one", "two"}
    assert worktree.experiment_commit(root, "one") != worktree.experiment_commit(root, "two")


def test_the_folder_of_one_that_was_killed_is_made_anew(root) -> None:
    left = root / worktree.EXPERIMENTS / "again"
    git(root, "worktree", "add", "-q", "--detach", str(left))
    (left / "half").touch()
    with worktree.worktree(root, "again", []) as folder:
        assert not (folder / "half").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("text", "KEY=VALUE"),
        ("=1", "KEY=VALUE"),
        ("other.text=1", "no section other"),
        ("text.other=1", "no section text"),
        ("text=[1", "not valid YAML"),
    ],
)
def test_a_wrong_override_is_named(tmp_path, text, message) -> None:
    file = tmp_path / "params.yaml"
    file.write_text("text: hello  # why\n")
    with pytest.raises(UserError, match=message) as error:
        worktree.override(file, [text])
    assert repr(text) in str(error.value)
    assert file.read_text() == "text: hello  # why\n"


@pytest.mark.parametrize("name", ["", "../up", "a b", "-x", "a/b", "$(touch x)", "a.lock", "a\nb"])
def test_a_name_is_no_path_and_no_command(tmp_path, name) -> None:
    with pytest.raises(UserError, match="letters, digits"), worktree.worktree(tmp_path, name, []):
        pass


# --------------------------------------------------------------- what users bring, what kills leave
def test_files_under_input_are_there(root) -> None:
    """Git ignores them: data and models of the user's own."""
    for folder in worktree.INPUTS:
        (root / folder).mkdir(parents=True)
        (root / folder / ".gitignore").write_text("*\n!.gitignore\n")
        (root / folder / "own").mkdir()
        (root / folder / "own" / "file").write_text("mine")
    git(root, "add", "--all")
    git(root, "commit", "-qm", "folders for input")
    with worktree.worktree(root, "own", []) as folder:
        for inputs in worktree.INPUTS:
            assert (folder / inputs / "own" / "file").read_text() == "mine"
            assert (folder / inputs / "own").resolve() == (root / inputs / "own").resolve()
        assert git(folder, "status", "--porcelain") == ""
    assert (root / "input/data/own/file").exists()


@pytest.mark.parametrize("left", [None, "folder"])
def test_a_name_is_free_again_after_a_kill(root, left) -> None:
    """`make clean` has taken the folder, or a kill has left one that git does not know any more."""
    with pytest.raises(KeyboardInterrupt), worktree.worktree(root, "k", []) as folder:
        raise KeyboardInterrupt
    git(root, "worktree", "add", "-q", "--detach", str(folder))
    shutil.rmtree(folder)
    if left is not None:
        folder.mkdir()
        (folder / "file").write_text("left")
    with worktree.worktree(root, "k", []) as folder:
        assert not (folder / "file").exists()
        assert (folder / "params.yaml").exists()


def test_a_file_that_was_renamed_stands_under_its_new_name_alone(root) -> None:
    (root / "some").write_text("text of some length")
    git(root, "add", "some")
    git(root, "commit", "-qm", "some")
    git(root, "mv", "some", "other")
    with worktree.worktree(root, "renamed", []) as folder:
        assert (folder / "other").exists()
        assert not (folder / "some").exists()
