"""A run from its specification to its finished model: found again, resumed, fully counted."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pipelines.runs import training
from pipelines.runs.inputs import TaskData
from pipelines.runs.jobs import finish
from pipelines.runs.machine import Machine
from pipelines.runs.pairing import load_pair
from pipelines.runs.progress import FINISHED, LOG
from pipelines.runs.training import MODEL, RunSpec, save_model
from skd.files import write_text
from skd.models.folders import hold_in
from skd.models.loading import load_model, load_tokenizer
from skd.models.procedural import procedural_model, train_tokenizer
from skd.models.quantised import QuantisedLinear, dequantise_
from skd.models.settings import Budget, ProceduralModel
from skd.seals import SEAL
from skd.training.methods import METHODS, ResponseSource
from skd.training.settings import Adapter, Distill, MethodSettings, Optimisation
from tests.tiny import machine_in

OPTIMISATION = Optimisation(
    steps=4, batch_size=2, learning_rate=0.01, validate_every=2, checkpoint_every=1
)
Spec = Callable[..., RunSpec]


def rows(split: str, count: int) -> list[dict[str, object]]:
    return [
        {
            "id": f"{split}-{number}",
            "source": f"{split} {number}",
            "target": f"{number}!",
            "references": [f"{number}!"],
        }
        for number in range(count)
    ]


@pytest.fixture
def spec(tmp_path: Path) -> Spec:
    """Makes runs of a method on a small task, by two models of its own."""
    tokenizer = train_tokenizer(["train 1 2 3 validation!"] * 20, 280)
    for name, seed in (("teacher", 1), ("student", 2)):
        settings = ProceduralModel(
            "procedural", hidden_size=16, layers=1, heads=2, steps=0, seed=seed
        )
        save_model(procedural_model(settings, tokenizer), tokenizer, tmp_path / name)
    task = TaskData(
        "toy", "summarization", "{source}", Budget(40, 6), rows("train", 6), rows("validation", 2)
    )

    def make(method: str) -> RunSpec:
        return RunSpec(
            name=f"toy-{method}",
            task=task,
            settings=MethodSettings(method),
            distill=Distill(OPTIMISATION),
            start_folder=tmp_path / "student",
            teacher_folder=None if method == "sft" else tmp_path / "teacher",
            seed=20,
        )

    return make


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return machine_in(tmp_path)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_leaves_a_model_its_log_and_whole_counts(method, spec, machine) -> None:
    run = finish(spec(method), machine)
    result, row = run.result, METHODS[method]
    assert (result.steps, result.prompts, result.training_rows) == (4, 8, 6)
    assert len((run.folder / LOG).read_text().splitlines()) == 4
    trained, start = (
        load_model(folder) for folder in (run.folder / MODEL, spec(method).start_folder)
    )
    pairs = zip(trained.parameters(), start.parameters(), strict=True)
    assert any(not torch.equal(ours, theirs) for ours, theirs in pairs)
    asked = row.needs_teacher or ResponseSource.TEACHER in row.sources
    assert (result.teacher_tokens > 0) == asked
    assert (result.teacher_passes > 0) == row.needs_teacher
    assert (result.validation.kl is not None) == (method != "sft")
    assert (result.acceptance_rate is not None) == (ResponseSource.INTERLEAVED in row.sources)
    assert {path.name for path in run.folder.iterdir()} == {FINISHED, LOG, MODEL, SEAL}


def test_a_finished_run_is_found_and_not_trained_again(spec, machine, monkeypatch) -> None:
    first = finish(spec("skd"), machine)

    def refuse(*_: object) -> None:
        raise AssertionError("it was trained again")

    monkeypatch.setattr(training, "_train", refuse)
    assert finish(dataclasses.replace(spec("skd"), name="other words"), machine, 3) == first


def test_a_run_is_kept_under_all_that_decides_it_and_nothing_else(spec) -> None:
    own = spec("skd")
    names = [own.key]
    settings, distill = own.settings, own.distill
    rate = distill.optimisation.learning_rate
    for same in (
        {"name": "other words"},
        {"settings": dataclasses.replace(settings, learning_rate=rate)},
    ):
        assert dataclasses.replace(own, **same).key == names[0]
    for changes in (
        {"seed": 21},
        {"task": dataclasses.replace(own.task, train=own.task.train[:5])},
        {"settings": dataclasses.replace(settings, decoding="sample")},
        {"distill": dataclasses.replace(distill, rollout_steps=2)},
        {"task": dataclasses.replace(own.task, prompt="Say {source}")},
        {"task": dataclasses.replace(own.task, validation=own.task.validation[:1])},
        {"start_folder": own.teacher_folder},
    ):
        names.append(dataclasses.replace(own, **changes).key)
    assert own.teacher_folder is not None
    write_text(own.teacher_folder / "README.md", "another content")
    names.append(own.key)
    assert len(set(names)) == len(names)


def optimised(spec: RunSpec, **changes: object) -> RunSpec:
    optimisation = dataclasses.replace(spec.distill.optimisation, **changes)
    return dataclasses.replace(
        spec, distill=dataclasses.replace(spec.distill, optimisation=optimisation)
    )


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.arange(20)[None], use_cache=False).logits


@pytest.mark.parametrize("method", ["sft", "skd"])
def test_an_adapter_is_merged_into_what_a_run_leaves_and_kept_beside_it(method, spec, machine):
    from peft import PeftModel

    own = optimised(spec(method), adapter=Adapter(2, 8), learning_rate=0.1)
    folder = finish(own, machine).folder / MODEL
    start, merged = load_model(own.start_folder), load_model(folder)
    adapted = PeftModel.from_pretrained(load_model(own.start_folder), folder / "adapter")
    assert torch.allclose(logits(merged), logits(adapted), atol=1e-5)
    assert not torch.allclose(logits(merged), logits(start), atol=1e-3)


@pytest.mark.parametrize("weights", ["int8", "nf4"])
def test_beside_few_bits_it_is_merged_into_what_these_stand_for(weights, spec, machine) -> None:
    own = optimised(spec("skd"), adapter=Adapter(2, 8), weights=weights, learning_rate=0.1)
    merged = load_model(finish(own, machine).folder / MODEL, dtype="auto")
    assert merged.dtype == torch.bfloat16
    start = load_model(own.start_folder, weights=weights)
    dequantise_(start)
    name = "model.layers.0.self_attn.q_proj.weight"
    change = (merged.get_parameter(name) - start.get_parameter(name)).float()
    assert torch.linalg.matrix_rank(change, rtol=0.1) <= 4  # of rank 2, and rounded to bf16
    assert change.norm() > 0


def test_a_teacher_is_held_as_its_folder_says(spec, machine) -> None:
    own = spec("skd")
    plain = load_pair(own, machine, load_tokenizer(own.start_folder), shares_ids=True).teacher
    name = own.key
    hold_in(own.teacher_folder, "nf4")
    held = load_pair(own, machine, load_tokenizer(own.start_folder), shares_ids=True).teacher
    kinds = [{type(part) for part in model.modules()} for model in (plain, held)]
    assert [QuantisedLinear in kind for kind in kinds] == [False, True]
    assert own.key != name
    runtime = dataclasses.replace(machine.runtime, teacher_device="offload")
    run = finish(own, dataclasses.replace(machine, runtime=runtime))
    assert run.result.teacher_tokens > 0
