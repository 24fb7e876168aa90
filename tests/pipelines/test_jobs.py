"""A run as a value: it survives pickle and JSON, and a command does what a stage would."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter

from pipelines import run as command
from pipelines.runs import cluster, testing, training
from pipelines.runs.engines import run_jobs
from pipelines.runs.inputs import TaskData
from pipelines.runs.jobs import JOB, Job, describe, finish, folders
from pipelines.runs.progress import FINISHED, LOG
from pipelines.runs.training import MODEL, RunSpec, save_model
from pipelines.settings.evaluate import Evaluate
from pipelines.settings.probe import Probe
from pipelines.stages.probe import Probing
from skd.data.record import ExampleRow
from skd.errors import UserError
from skd.files import write_text
from skd.models.procedural import procedural_model, train_tokenizer
from skd.models.settings import Budget, ProceduralModel
from skd.seals import SEAL
from skd.training.settings import Distill, MethodSettings, Optimisation
from tests.tiny import machine_in

ROOT = Path(__file__).resolve().parents[2]
BUDGET = Budget(40, 6)
STUDENT, TEACHER = Path("models/student"), Path("models/teacher")
ROWS = [
    ExampleRow(id=f"{i}", source=f"Ωmega {i}", target=f"{i / 3}!", references=[f"{i / 3}!"])
    for i in range(6)
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `models/student` and `models/teacher`."""
    root = tmp_path_factory.mktemp("models")
    tokenizer = train_tokenizer(["mega 1 2 3.3!"] * 20, 280)
    for seed, folder in enumerate((TEACHER, STUDENT)):
        shape = ProceduralModel("procedural", hidden_size=16, layers=1, heads=2, steps=0, seed=seed)
        save_model(procedural_model(shape, tokenizer), tokenizer, root / folder)
    return root


@pytest.fixture
def jobs(models: Path, monkeypatch: pytest.MonkeyPatch) -> list[Job[Any]]:
    """A job of each kind, by two models of its own."""
    monkeypatch.chdir(models)
    return some_jobs()


def some_jobs() -> list[Job[Any]]:
    optimisation = Optimisation(
        steps=2, batch_size=2, learning_rate=0.1 + 0.2, validation_examples=2, checkpoint_every=1
    )
    task = TaskData("toy", "summarization", "{source}", BUDGET, ROWS, ROWS[:3])
    distill = Distill(optimisation)
    settings = MethodSettings("skd")
    split = testing.TestSplit("toy", "summarization", "{source}", BUDGET, ROWS)
    probe = Probe(methods=[], examples=3, drafted=1, k=1)
    return [
        RunSpec("toy-skd", task, settings, distill, STUDENT, TEACHER, 20),
        testing.Testing("skd", None, STUDENT, split, Evaluate(batch_size=3), "cpu"),
        Probing(task, STUDENT, TEACHER, 20, distill, probe, "cpu"),
    ]


def test_a_job_survives_pickle_and_its_json(jobs, tmp_path) -> None:
    for job in jobs:
        describe(job, tmp_path)
        read = command.read_job(job.key, tmp_path)
        for same in (pickle.loads(pickle.dumps(job)), read):  # noqa: S301 - our own, of a moment ago
            assert (same, same.key, type(same)) == (job, job.key, type(job))


def test_where_a_jobs_folders_stand_is_not_in_its_key(jobs, models) -> None:
    for job in jobs:
        moved = {name: models / folder for name, folder in folders(job).items()}
        assert set(moved) & {"start_folder", "folder", "student"}
        assert dataclasses.replace(job, **moved).key == job.key


def test_a_key_follows_what_is_in_the_folders(jobs, models) -> None:
    before = [job.key for job in jobs]
    note = models / STUDENT / "README.md"
    write_text(note, "another content")
    changed = [job.key for job in jobs]
    write_text(note, "one more")
    again = [job.key for job in jobs]
    note.unlink()
    for keys in zip(before, changed, again, strict=True):
        assert len(set(keys)) == 3
    assert [job.key for job in jobs] == before


def test_the_key_of_a_test_follows_the_files_of_its_comet_checkpoint(models, monkeypatch) -> None:
    """Another download may have replaced them under one name. Only translations have the score."""
    monkeypatch.chdir(models)
    comet = models / "comet"
    write_text(comet / "hparams.yaml", "{}")
    write_text(comet / "checkpoints/model.ckpt", "weights")
    write_text(comet / "encoder/config.json", "{}")
    _, test, _ = some_jobs()
    scored = Evaluate(batch_size=3, comet=str(comet))
    keys: dict[str, list[str]] = {}
    for kind in ("translation", "summarization"):
        split = dataclasses.replace(test.split, kind=kind)
        job = dataclasses.replace(test, split=split, settings=scored)
        for weights in ("weights", "other weights"):
            write_text(comet / "checkpoints/model.ckpt", weights)
            keys.setdefault(kind, []).append(job.key)
    assert len(set(keys["translation"])) == 2
    assert len(set(keys["summarization"])) == 1


def test_what_a_cluster_gives_back_leaves_what_another_stage_has_finished(tmp_path) -> None:
    """Two stages may have asked for one run at once."""
    made = {"model/weights": b"theirs", FINISHED: b"their result"}
    cluster._put(dict(made), tmp_path / "run")
    assert (tmp_path / "run/model/weights").read_bytes() == b"theirs"
    cluster._put({"model/weights": b"late", FINISHED: b"late"}, tmp_path / "run")
    assert (tmp_path / "run/model/weights").read_bytes() == b"theirs"
    assert (tmp_path / "run" / FINISHED).read_bytes() == b"their result"


def test_what_was_done_is_found_and_not_done_again(jobs, tmp_path, monkeypatch) -> None:
    machine = machine_in(tmp_path)
    first = [done.result for done in run_jobs(jobs, machine)]

    def refuse(*_: object) -> None:
        raise AssertionError("it was done again")

    for module, name in ((training, "_train"), (testing, "_test")):
        monkeypatch.setattr(module, name, refuse)
    monkeypatch.setattr(Probing, "make", refuse)
    assert [finish(job, machine, line=3).result for job in jobs] == first
    assert [type(result) for result in first] == [job.kind for job in jobs]


# ------------------------------------------------------------------------ the command
def project(root: Path, models: Path) -> Path:
    """A project's root as far as the command sees it."""
    raw = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    raw["evaluate"]["batch_size"] = 4
    raw["runtime"] |= {"device": "cpu", "workers": 1, "progress": False, "scratch": ".scratch"}
    write_text(root / "params.yaml", yaml.safe_dump(raw))
    (root / "models").symlink_to(models / "models")
    return root


def test_a_run_made_by_the_command_is_the_one_made_in_process(
    jobs, models, tmp_path, monkeypatch, capsys
) -> None:
    run = jobs[0]
    here = finish(run, machine_in(tmp_path))
    monkeypatch.chdir(project(tmp_path, models))
    describe(run, Path(".scratch"))
    for _ in range(2):  # the second time it is found
        command.main([run.key])
        assert capsys.readouterr().out == f".scratch/{run.key}\n"
    there = Path(".scratch") / run.key
    for file in ("model.safetensors", "tokenizer.json", "config.json"):
        assert (there / MODEL / file).read_bytes() == (here.folder / MODEL / file).read_bytes()
    assert {path.name for path in there.iterdir()} == {JOB, FINISHED, LOG, MODEL, SEAL}
    result = TypeAdapter(run.kind).validate_json((there / FINISHED).read_bytes())
    apart = {"cost": here.result.cost, "preparation": here.result.preparation}  # seconds
    assert dataclasses.replace(result, **apart) == here.result


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), r"job\.json is missing: no stage has asked for this run"),
        (lambda path: path.write_text('{"name": 3'), r"job\.json: .*; remove it and run its stage"),
        (
            lambda path: path.write_text(path.read_text().replace('"seed":20', '"seed":21')),
            r"job\.json: the code or the models .* have changed, .*toy-skd-21-.*its stage again",
        ),
    ],
)
def test_a_key_that_cannot_be_made_says_why(
    spoil, message, jobs, models, tmp_path, monkeypatch
) -> None:
    run = jobs[0]
    monkeypatch.chdir(project(tmp_path, models))
    describe(run, Path(".scratch"))
    spoil(Path(".scratch") / run.key / JOB)
    with pytest.raises(UserError, match=message):
        command.main([run.key])
    assert not (Path(".scratch") / run.key / FINISHED).exists()


@pytest.mark.parametrize("damage", ["cut off", "gone"])
def test_finished_work_that_was_damaged_is_made_anew(damage, jobs, tmp_path, capfd) -> None:
    """Whatever file it is: the outputs of the job, its log, or what says that it is finished."""
    machine = machine_in(tmp_path)
    job = jobs[0]
    done = finish(job, machine)
    names = sorted(p.name for p in done.folder.rglob("*") if p.is_file())
    weights = (done.folder / MODEL / "model.safetensors").read_bytes()
    for name in {"model.safetensors", "config.json", LOG, FINISHED, "seal.json"} & {*names}:
        (path,) = done.folder.rglob(name)
        if damage == "gone" and name == FINISHED:
            continue  # it says that the work is done
        path.unlink() if damage == "gone" else path.write_bytes(path.read_bytes()[:-2])
        again = finish(job, machine)
        assert "made anew" in capfd.readouterr().err
        assert (again.folder / MODEL / "model.safetensors").read_bytes() == weights
        assert again.result.validation == done.result.validation
        assert (again.folder / JOB).exists()
    finish(job, machine)
    assert "made anew" not in capfd.readouterr().err
