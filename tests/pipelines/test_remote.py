"""What an experiment left goes to a remote and comes back whole, or is named and made again.

A folder is the remote always, an S3 server on loopback where moto and dvc-s3 are installed.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.repo import Repo

from pipelines.orchestration import remote
from pipelines.orchestration.objects import md5
from skd.errors import UserError
from tests.pipelines.conftest import Stages, ran

pytestmark = pytest.mark.filterwarnings("ignore")  # DVC's and its plugins' own
BUCKET = "experiment"


def stages() -> Stages:
    """seed → folder → join, and aside; a folder's file is also another output's content."""
    return {
        "seed": {"cmd": "echo seed >> ran && echo ${text} > seed.txt", "outs": ["seed.txt"]},
        "folder": {
            "cmd": "echo folder >> ran && mkdir -p f/in && cp seed.txt f/in/a && echo b > f/b",
            "deps": ["seed.txt"],
            "outs": ["f"],
        },
        "join": {
            "cmd": "echo join >> ran && cat f/in/a f/b > join.txt && echo 1 > join.json",
            "deps": ["f"],
            "outs": ["join.txt"],
            "metrics": [{"join.json": {"cache": False}}],
        },
        "aside": {"cmd": "echo aside >> ran && echo else > aside.txt", "outs": ["aside.txt"]},
    }


OUTPUTS = ("seed.txt", "f", "join.txt", "aside.txt")


@dataclass
class Kind:
    """A kind of remote, from the outside."""

    url: str
    # DVC's settings of it, name -> value; no secret
    settings: dict[str, str]
    names: Callable[[], list[str]]
    write: Callable[[str, bytes], None]
    remove: Callable[[str], None]


def folder(store: Path) -> Kind:
    def write(name: str, content: bytes) -> None:
        (store / name).unlink()  # it may be read-only
        (store / name).write_bytes(content)

    return Kind(
        url=str(store),
        settings={},
        names=lambda: [str(f.relative_to(store)) for f in store.rglob("*") if f.is_file()],
        write=write,
        remove=lambda name: (store / name).unlink(),
    )


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    pytest.importorskip("dvc_s3", reason="no S3 here: pip install '.[s3]'")
    server = pytest.importorskip("moto.server", reason="no S3 server here: pip install '.[s3]'")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line per request
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


def bucket(address: str) -> Kind:
    import boto3

    client: Any = boto3.client("s3", endpoint_url=address, region_name="us-east-1")
    client.create_bucket(Bucket=BUCKET)
    for item in client.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        client.delete_object(Bucket=BUCKET, Key=item["Key"])
    return Kind(
        url=f"s3://{BUCKET}/skd",
        settings={"endpointurl": address, "region": "us-east-1"},
        names=lambda: [o["Key"] for o in client.list_objects_v2(Bucket=BUCKET).get("Contents", [])],
        write=lambda name, content: client.put_object(Bucket=BUCKET, Key=name, Body=content),
        remove=lambda name: client.delete_object(Bucket=BUCKET, Key=name),
    )


@pytest.fixture(params=["folder", "s3"])
def kind(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kind:
    if request.param == "folder":
        return folder(tmp_path / "store")
    # Secrets are the environment's: none is in DVC's configuration.
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    return bucket(request.getfixturevalue("s3_server"))


@pytest.fixture(scope="session")
def ran_once(empty_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose stages ran."""
    root = tmp_path_factory.mktemp("ran") / "project"
    shutil.copytree(empty_project, root)
    (root / "params.yaml").write_text("text: hello\n")
    graph = {"vars": ["params.yaml"], "stages": stages()}
    (root / "dvc.yaml").write_text(yaml.safe_dump(graph, sort_keys=False))
    repro(root)
    ran(root)
    return root


def with_remote(root: Path, url: str, settings: dict[str, str]) -> None:
    """As `dvc remote add -d` and `dvc remote modify` write it."""
    lines = [
        "[core]",
        "no_scm = true",
        "remote = storage",
        "['remote \"storage\"']",
        f"url = {url}",
    ]
    lines += [f"{name} = {value}" for name, value in settings.items()]
    (root / ".dvc" / "config").write_text("\n".join(lines) + "\n")


@pytest.fixture
def copied(ran_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "project"
    shutil.copytree(ran_once, root)
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def pushed(copied: Path, kind: Kind) -> Path:
    """A project that ran once, and whose remote has it all."""
    with_remote(copied, kind.url, kind.settings)
    assert remote.push(copied) == ["5 of 5 objects were new to the remote 'storage'"]
    return copied


def repro(root: Path) -> None:
    """`dvc repro`, in this process."""
    here = Path.cwd()
    os.chdir(root)
    try:
        with Repo(str(root)) as repo:
            repo.reproduce()
    finally:
        os.chdir(here)


def contents(root: Path) -> dict[str, bytes]:
    paths = [path for name in OUTPUTS for path in (root / name, *(root / name).rglob("*"))]
    return {str(path.relative_to(root)): path.read_bytes() for path in paths if path.is_file()}


def elsewhere(root: Path) -> None:
    """As on another machine: what git has is there, and what DVC has is not."""
    shutil.rmtree(root / ".dvc" / "cache")
    for name in OUTPUTS:
        shutil.rmtree(root / name, ignore_errors=True)
        (root / name).unlink(missing_ok=True)


def name_of(root: Path, kind: Kind, content: bytes) -> str:
    """The remote's name of an object with this content."""
    (root / "probe").write_bytes(content)
    oid = md5(root / "probe")
    (name,) = [name for name in kind.names() if name.replace("/", "").endswith(oid)]
    return name


def list_of(kind: Kind) -> str:
    (name,) = [name for name in kind.names() if name.endswith(".dir")]
    return name


def repaired(root: Path, kind: Kind, before: dict[str, bytes], stages_run: list[str]) -> None:
    """After a pull one run makes what was lost and no more, and a push makes the remote whole."""
    repro(root)
    assert ran(root) == stages_run
    assert contents(root) == before
    remote.push(root)
    elsewhere(root)
    assert remote.pull(root) == []
    assert contents(root) == before
    assert remote.push(root) == ["0 of 5 objects were new to the remote 'storage'"]


def test_what_was_pushed_comes_back_and_nothing_runs(pushed: Path, kind: Kind) -> None:
    before = contents(pushed)
    elsewhere(pushed)
    assert remote.pull(pushed) == []
    repaired(pushed, kind, before, [])


def test_a_missing_file_of_a_folder_is_named_and_made_by_its_stage_alone(
    pushed: Path, kind: Kind
) -> None:
    before = contents(pushed)
    elsewhere(pushed)
    kind.remove(name_of(pushed, kind, b"b\n"))
    (line,) = remote.pull(pushed)
    assert "f/b (stage folder, object" in line
    assert "is missing" in line
    assert not (pushed / "f").exists()
    repaired(pushed, kind, before, ["folder"])


@pytest.mark.parametrize("content", [b"", b"ELSE\n"])
def test_a_damaged_file_is_named_taken_out_and_made_by_its_stage_alone(
    content: bytes, pushed: Path, kind: Kind
) -> None:
    before = contents(pushed)
    elsewhere(pushed)
    name = name_of(pushed, kind, b"else\n")
    kind.write(name, content)
    (line,) = remote.pull(pushed)
    assert "aside.txt (stage aside, object" in line
    assert "was damaged" in line
    assert name not in kind.names()
    repaired(pushed, kind, before, ["aside"])


def test_an_object_of_two_outputs_is_named_for_both(pushed: Path, kind: Kind) -> None:
    before = contents(pushed)
    elsewhere(pushed)
    kind.write(name_of(pushed, kind, b"hello\n"), b"hallo\n")
    lines = remote.pull(pushed)
    assert sorted(line.split("'storage': ")[1].split(" (")[0] for line in lines) == [
        "f/in/a",
        "seed.txt",
    ]
    repaired(pushed, kind, before, ["seed"])  # its output makes the folder whole again


@pytest.mark.parametrize("content", [None, b"[]", b"[{"])
def test_a_damaged_list_of_a_folder_is_made_by_its_stage_alone(
    content: bytes | None, pushed: Path, kind: Kind
) -> None:
    before = contents(pushed)
    elsewhere(pushed)
    if content is None:
        kind.remove(list_of(kind))
    else:
        kind.write(list_of(kind), content)
    (line,) = remote.pull(pushed)
    assert line.startswith("the remote 'storage': f (stage folder, object")
    repaired(pushed, kind, before, ["folder"])


def test_an_upload_that_was_cut_off_is_done_again(pushed: Path, kind: Kind) -> None:
    kind.write(name_of(pushed, kind, b"else\n"), b"el")
    assert remote.push(pushed) == ["1 of 5 objects were new to the remote 'storage'"]
    before = contents(pushed)
    elsewhere(pushed)
    assert remote.pull(pushed) == []
    assert contents(pushed) == before


def test_what_is_damaged_in_the_cache_is_named_and_comes_from_the_remote(
    pushed: Path, kind: Kind
) -> None:
    before = contents(pushed)
    cached = pushed / ".dvc" / "cache" / "files" / "md5"
    for name in (name_of(pushed, kind, b"b\n"), list_of(kind)):
        spoilt = cached / Path(name).parent.name / Path(name).name
        spoilt.chmod(0o644)
        spoilt.write_bytes(b"c\n")
    lines = remote.check(pushed)
    assert len(lines) == 1, "the list; without it nobody knows what its files are"
    assert "f (stage folder" in lines[0]
    assert remote.pull(pushed) == []
    (line,) = remote.check(pushed)
    assert "f/b (stage folder" in line
    assert remote.pull(pushed) == []
    assert remote.check(pushed) == []
    repaired(pushed, kind, before, [])


# ------------------------------------------------------------------- what cannot be used
def test_without_a_remote_the_command_says_how_to_make_one(copied: Path) -> None:
    with pytest.raises(UserError, match=r"dvc remote add -d[\s\S]*docs/remotes\.md"):
        remote.pull(copied)


def test_a_remote_that_cannot_be_used_is_named(copied: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with_remote(copied, str(tmp_path / "file"), {})
    with pytest.raises(UserError, match="the remote 'storage' cannot be used"):
        remote.push(copied)


def test_an_s3_server_that_does_not_answer_is_named(
    copied: Path, s3_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with_remote(copied, "s3://nowhere/skd", {"endpointurl": "http://127.0.0.1:9"})
    with pytest.raises(UserError, match="the remote 'storage' cannot be used"):
        remote.push(copied)
