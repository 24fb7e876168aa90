"""Runs whose teacher and student have different tokenizers: what trains, and what is refused."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from statistics import fmean

import pytest
import torch
import yaml

from pipelines.runs import folders
from pipelines.runs.inputs import TaskData
from pipelines.runs.jobs import finish
from pipelines.runs.machine import Machine
from pipelines.runs.progress import LOG
from pipelines.runs.training import MODEL, RunSpec, save_model
from pipelines.schema import parse
from pipelines.settings.probe import Probe
from pipelines.settings.runtime import Runtime
from pipelines.stages import base, probe
from skd.errors import UserError
from skd.models.loading import load_model, load_tokenizer
from skd.models.procedural import procedural_model
from skd.models.settings import Budget, FolderModel, Models, ProceduralModel
from skd.training.methods import METHODS, ResponseSource
from skd.training.settings import Distill, MethodSettings, Optimisation
from tests.tiny import machine_in
from tests.two_tokenizers import large, small

ABLE = [name for name, method in METHODS.items() if not method.needs_shared_ids]
WORDS = ["the cat", "a hat 🙂", "on 12 mats", "কলম"]
ROWS = [
    {"id": str(i), "source": word, "target": word[::-1], "references": [word[::-1]]}
    for i, word in enumerate(WORDS)
]


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """A folder with a teacher of many long tokens and a student of few short ones."""
    for name, tokenizer, seed in (("teacher", large(), 1), ("student", small(), 2)):
        sizes = ProceduralModel("procedural", hidden_size=16, layers=1, heads=2, steps=0, seed=seed)
        model = procedural_model(sizes, tokenizer)
        if name == "teacher":  # one with opinions
            with torch.no_grad():
                model.get_output_embeddings().weight.mul_(12)
        save_model(model, tokenizer, tmp_path / name)
    return tmp_path


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return machine_in(tmp_path)


def spec(pair: Path, method: str, budget: Budget) -> RunSpec:
    task = TaskData("toy", "summarization", "{source}", budget, ROWS, ROWS[:2])
    optimisation = Optimisation(
        steps=16, batch_size=4, micro_batch_size=2, learning_rate=0.02, decay="none", warmup=0.0
    )
    return RunSpec(
        name=f"toy-{method}",
        task=task,
        settings=MethodSettings(method),
        distill=Distill(optimisation),
        start_folder=pair / "student",
        teacher_folder=pair / "teacher",
        seed=20,
    )


def test_the_methods_that_need_shared_ids_are_those_of_two_models_in_one_response() -> None:
    assert set(METHODS) - set(ABLE) == {
        name for name in METHODS if "skd" in name or name in ("ca_opd", "on_policy_hard")
    }


@pytest.mark.parametrize("method", ABLE)
def test_every_other_method_learns_from_a_teacher_with_another_tokenizer(
    method, pair, machine
) -> None:
    run = finish(spec(pair, method, Budget(40, 12)), machine)
    losses = [json.loads(line)["loss"] for line in (run.folder / LOG).read_text().splitlines()]
    half = 8 if METHODS[method].start else 0  # its second half is on other responses
    assert fmean(losses[-3:]) < fmean(losses[half : half + 3])
    assert run.result.validation.kl is not None
    assert (run.result.teacher_passes > 0) == METHODS[method].needs_teacher
    asked = METHODS[method].needs_teacher or ResponseSource.TEACHER in METHODS[method].sources
    assert (run.result.teacher_tokens > 0) == asked
    assert load_tokenizer(run.folder / MODEL).get_vocab() == small().get_vocab()
    assert load_model(run.folder / MODEL).config.vocab_size == len(small())


def test_rows_that_only_the_student_can_read_are_dropped_and_counted(pair, machine) -> None:
    """The teacher's tokenizer has one token where the student's has several, not the reverse."""
    swapped = dataclasses.replace(
        spec(pair, "supervised_kd", Budget(9, 12, too_long="drop")),
        start_folder=pair / "teacher",
        teacher_folder=pair / "student",
    )
    lengths = [len(small()(w).input_ids) + 2 for w in WORDS]
    fitting = sum(length <= 9 for length in lengths)
    assert 0 < fitting < len(WORDS)
    result = finish(swapped, machine).result
    assert (result.training_rows, result.dropped_prompts) == (fitting, len(WORDS) - fitting)


# ------------------------------------------------------------------------ the stages
def parameters(pair: Path, **models: str) -> base.Parameters:
    teacher, student = (FolderModel("folder", str(pair / n)) for n in ("teacher", "student"))
    return base.Parameters(
        tasks=[],
        models=Models(teacher, student, **models),
        decoding_batch=4,
        runtime=Runtime(device="cpu", progress=False, plan=False),
    )


def test_such_a_pair_is_refused_unless_it_is_asked_for(pair, monkeypatch) -> None:
    monkeypatch.chdir(pair)
    with pytest.raises(UserError, match=r"different tokenizers: id \d+ .*cross_tokenizer: uld"):
        base.base(parameters(pair))
    result = base.base(parameters(pair, cross_tokenizer="uld"))
    assert result.cross_tokenizer
    assert result.vocabulary == len(small())
    assert result.eos == [small().eos_token_id]


def test_one_tokenizer_stays_one_where_crossing_is_asked_for(pair, monkeypatch) -> None:
    monkeypatch.chdir(pair)
    both = dataclasses.replace(parameters(pair, cross_tokenizer="uld"))
    same = FolderModel("folder", str(pair / "student"))
    models = dataclasses.replace(both.models, teacher=same)
    result = base.base(dataclasses.replace(both, models=models))
    assert not result.cross_tokenizer


def test_the_probe_says_that_it_measures_nothing(pair, monkeypatch) -> None:
    from skd.report.sections.probe import agreement, drafts

    monkeypatch.chdir(pair)
    folders.SFT.mkdir(parents=True)
    (folders.SFT / "toy").symlink_to(pair)
    (pair / "student-20").symlink_to(pair / "student")
    result = probe.probe(
        probe.Parameters(
            tasks=["toy"],
            seeds=[20],
            budget={},
            distill=Distill(Optimisation(steps=1, batch_size=1, learning_rate=1.0)),
            probe=Probe(methods=["supervised_kd"]),
            runtime=Runtime(device="cpu", progress=False),
        )
    )
    assert result.tasks == {}
    for section in (agreement(result), drafts(result)):
        assert "Not measured: tokenizers differ." in section


# -------------------------------------------------------------------- the parameters
ROOT = Path(__file__).resolve().parent.parent.parent
DEFAULT = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
DEFAULT["models"] = {
    "teacher": {"kind": "folder", "path": "a"},
    "student": {"kind": "folder", "path": "b"},
    "cross_tokenizer": "uld",
}
DEFAULT["experiment"]["methods"] = ["sft", "seq_kd", "on_policy_kd"]


def test_methods_that_need_no_shared_ids_pass_the_check_of_parameters() -> None:
    assert parse(copy.deepcopy(DEFAULT)).models.cross_tokenizer == "uld"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"experiment": {"methods": ["sft", "skd"]}}, "experiment.methods names 'skd': .* share"),
        ({"experiment": {"sweeps": ["rules"]}}, r"sweeps\.rules\.method names 'skd'"),
        ({"experiment": {"fairness": ["arithmetic"]}}, r"fairness\.knobs names 'skd'"),
        ({"experiment": {"students": ["deep"]}}, r"scaling\.methods names 'skd'"),
        ({"experiment": {"methods": ["on_policy_hard"]}}, "these methods work: sft, seq_kd, sup"),
        ({"distill": {"teacher_cache": "always"}}, "teacher_cache: always .* set it to auto"),
        (
            {"models": {"student": {"kind": "layers", "count": 2}}},
            "student of kind layers has its teacher's; remove it",
        ),
        ({"models": {"cross_tokenizer": "gold"}}, "cross_tokenizer: .*'gold'"),
    ],
)
def test_what_needs_shared_ids_is_refused_before_anything_runs(changes, message) -> None:
    document = copy.deepcopy(DEFAULT)
    for section, values in changes.items():
        document[section] |= values
    with pytest.raises(UserError, match=message):
        parse(document)
