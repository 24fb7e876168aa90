"""Students of their teacher's layers: chosen, healed, resumed, and what is said of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from pipelines.runs import pruning
from pipelines.runs.folders import BASE
from pipelines.runs.inputs import DATA
from pipelines.runs.machine import Machine
from pipelines.runs.pruning import LAYERS, prune
from pipelines.runs.training import save_model
from pipelines.settings.runtime import Runtime
from pipelines.stages.base import Parameters, base
from skd.data.settings import Procedural
from skd.decoding.agreement import agreement
from skd.engine.sequences import TokenExample, collate
from skd.errors import UserError
from skd.files import jsonl, write_text
from skd.models.encoding import encode
from skd.models.layers import keep_layers
from skd.models.loading import load_model, load_tokenizer
from skd.models.pairs import common_vocabulary
from skd.models.procedural import procedural_model, train_tokenizer
from skd.models.settings import (
    Budget,
    FolderModel,
    Healing,
    LayersModel,
    Models,
    ProceduralModel,
    StudentModel,
)
from skd.results.data import DataCard, Duplicates
from skd.results.files import read_result, write_result
from skd.results.layers import LayerChoice
from tests.tiny import machine_in

TASKS = ("words", "sums")
TEACHER = Path("teacher")
STUDENT = Path("student")
DEPTH = 4
Prune = Callable[[LayersModel], LayerChoice]


def settings(**changes: object) -> LayersModel:
    values: dict[str, object] = {"count": 2, "calibration_rows": 4, "heal": None}
    return LayersModel("layers", **{**values, **changes})  # type: ignore[arg-type]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return machine_in(tmp_path)


@pytest.fixture
def cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: Machine) -> Prune:
    """Makes a student from a teacher of four layers. There are training splits and no others."""
    monkeypatch.chdir(tmp_path)
    for task in TASKS:
        card = DataCard(
            "summarization", None, f"{task}: {{source}}", Procedural("procedural"), None, {},
            Duplicates(0, 0, 0), 0, "",
        )  # fmt: skip
        write_result(DATA / task / "card.json", card)
        rows = [{"id": f"{i}", "source": f"{task} {i}", "target": f"{i}!"} for i in range(12)]
        write_text(DATA / task / "train.jsonl", jsonl(rows))
    tokenizer = train_tokenizer(["words sums: 1 2 3!"] * 20, 280)
    shape = ProceduralModel("procedural", hidden_size=16, layers=DEPTH, heads=2, steps=0, seed=1)
    save_model(procedural_model(shape, tokenizer), tokenizer, TEACHER)

    def make(wanted: LayersModel) -> LayerChoice:
        prune(STUDENT, "models.student", wanted, TEACHER, TASKS, machine)
        return read_result(STUDENT / LAYERS, LayerChoice, "base")

    return make


def same_weights(one, other) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(ours, theirs) for ours, theirs in pairs)


def test_the_chosen_layers_are_the_teachers_and_their_choice_is_told(cut) -> None:
    choice = cut(settings())
    assert (len(choice.kept), choice.rows, choice.healed_loss) == (2, 4, None)
    assert len(choice.importance) == DEPTH
    first = min(range(DEPTH), key=lambda layer: choice.importance[layer])
    assert choice.left_out[0].layer == first
    assert choice.left_out[0].loss == pytest.approx(choice.whole_loss + choice.importance[first])
    assert sorted([*choice.kept, *(left.layer for left in choice.left_out)]) == list(range(DEPTH))
    assert choice.cut_loss == pytest.approx(choice.left_out[-1].loss)
    student = load_model(STUDENT)
    assert same_weights(student, keep_layers(load_model(TEACHER), choice.kept))
    assert load_tokenizer(STUDENT).get_vocab() == load_tokenizer(TEACHER).get_vocab()


def test_rows_are_measured_on_by_turns_of_the_tasks_each_in_its_own_prompt(cut) -> None:
    measured, others = pruning._rows(TASKS, 4)
    assert [row["source"] for row in measured] == [
        "words: words 0", "sums: sums 0", "words: words 1", "sums: sums 1",
    ]  # fmt: skip
    assert len(others) == 20
    assert not {row["id"] for row in measured} & {row["id"] for row in others}
    assert len(pruning._rows(TASKS, 1000)[0]) == 12


def test_an_interrupted_choice_goes_on_and_a_smaller_student_from_a_larger(
    cut, monkeypatch
) -> None:
    wanted = cut(settings(count=1))
    monkeypatch.setattr(pruning, "code_of", lambda module: f"{module} as another revision has it")
    rounds: list[int] = []
    measure = pruning.losses_without_each

    def counted(model, kept, *others):
        if len(rounds) == 1 and len(kept) == DEPTH - 1:
            rounds.append(-1)
            raise KeyboardInterrupt
        rounds.append(len(kept))
        return measure(model, kept, *others)

    monkeypatch.setattr(pruning, "losses_without_each", counted)
    with pytest.raises(KeyboardInterrupt):
        cut(settings(count=2))
    larger = cut(settings(count=2))
    assert cut(settings(count=1)) == wanted
    assert rounds == [DEPTH, -1, DEPTH - 1, DEPTH - 2]
    assert larger.left_out == wanted.left_out[:2]


def test_rounds_whose_file_was_cut_off_are_made_anew(cut, machine, capsys) -> None:
    wanted = cut(settings())
    (path,) = machine.scratch.glob("layers-*.json")
    path.write_text(path.read_text()[:-9])
    assert cut(settings()) == wanted
    assert f"{path} is damaged" in capsys.readouterr().err


def test_layers_named_by_hand_are_told_without_a_choice(cut) -> None:
    choice = cut(settings(count=None, keep=[0, 3]))
    assert (choice.kept, choice.importance, choice.left_out) == ([0, 3], [], [])
    assert choice.cut_loss == choice.even_loss


@pytest.mark.parametrize("weights", ["float32", "bfloat16"])
def test_healing_brings_the_student_nearer_to_its_teacher(weights, cut) -> None:
    unhealed = cut(settings())
    cut_student = load_model(STUDENT)
    healed = cut(settings(heal=Healing(30, 4, learning_rate=3e-3, weights=weights)))
    assert healed == dataclasses.replace(unhealed, healed_loss=healed.healed_loss)
    assert healed.healed_loss is not None
    teacher, tokenizer = load_model(TEACHER), load_tokenizer(TEACHER)
    rows = pruning._rows(TASKS, 4)[0]
    examples: list[TokenExample] = encode(rows, "{source}", tokenizer, Budget(40, 8)).examples
    batch, vocabulary = collate(examples, 0), common_vocabulary(tokenizer, teacher)
    before, after = (
        agreement(student, teacher, [batch], vocabulary, (5,)).kl
        for student in (cut_student, load_model(STUDENT))
    )
    assert after < before


def test_the_stage_makes_the_student_and_tells_of_its_layers(cut, tmp_path) -> None:
    wanted = cut(settings())
    models = Models(FolderModel("folder", str(TEACHER)), settings())
    runtime = Runtime(device="cpu", workers=1, scratch=str(tmp_path / "scratch"), progress=False)
    told = base(Parameters(list(TASKS), models, 4, runtime))
    assert told.layers == wanted
    assert (told.teacher.size.layers, told.student.size.layers) == (DEPTH, 2)
    assert same_weights(load_model(BASE / "student"), load_model(STUDENT))


@pytest.mark.parametrize("count", [DEPTH, 40])
def test_more_layers_than_there_are_to_leave_out_are_refused(cut, count) -> None:
    with pytest.raises(UserError, match=rf"models.student.count: {count} must be below {DEPTH}"):
        cut(settings(count=count))


def test_too_few_rows_are_refused(cut) -> None:
    for task in TASKS:
        write_text(DATA / task / "train.jsonl", "")
    with pytest.raises(UserError, match="0 training rows are too few"):
        cut(settings())


@pytest.mark.parametrize("given", [{}, {"keep": [0], "count": 1}, {"count": 0}])
def test_a_student_of_layers_says_which_or_how_many(given) -> None:
    with pytest.raises(ValidationError, match=r"keep.*count|greater than 0"):
        TypeAdapter(StudentModel).validate_python({"kind": "layers", **given})
