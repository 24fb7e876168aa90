"""The settings that save memory, all at once, through the stages to the exported student."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from pipelines.runs import folders
from skd.models.adapters import ADAPTER
from skd.models.loading import load_model
from tests.end_to_end.stages import run_stages, tiny_experiment

pytestmark = pytest.mark.slow
TASK, SEED = "summarization", 20
METHODS = ["supervised_kd", "on_policy_kd", "skd"]


def parameters() -> dict:
    params = tiny_experiment(
        TASK,
        METHODS,
        learning_rate=1e-2,
        adapter={"rank": 4, "alpha": 8},
        weights="bfloat16",
        optimiser="adamw_8bit",
        gradient_checkpointing=True,
        micro_batch_size=2,
    )
    params["data"][TASK] |= {"train_size": 200, "validation_size": 8, "test_size": 10}
    for role in ("teacher", "student"):
        params["models"][role]["steps"] = 4
    params["models"]["teacher_weights"] = "nf4"
    params["distill"]["optimisation"]["weights"] = "int8"
    params["runtime"]["teacher_device"] = "offload"
    return params


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """All stages, run once."""
    root = tmp_path_factory.mktemp("memory")
    run_stages(root, parameters())
    return root


def test_every_method_is_in_the_report(project) -> None:
    text = (project / "reports/report.md").read_text()
    assert all(f"`{method}`" in text for method in METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_a_student_is_a_plain_folder_with_its_adapter_beside(project, method) -> None:
    folder = folders.student(method, TASK, SEED)
    merged = load_file(project / folder / "model.safetensors")
    assert {weight.dtype for weight in merged.values()} == {torch.bfloat16}
    assert not any("lora" in name for name in merged)
    start = project / folders.start(TASK, SEED)
    adapted = PeftModel.from_pretrained(load_model(start), project / folder / ADAPTER)
    moved = [
        name
        for name, weight in adapted.merge_and_unload().state_dict().items()
        if not torch.equal(weight, load_model(start).state_dict()[name])
    ]
    assert moved
    assert all(name.endswith("_proj.weight") for name in moved)


def test_only_the_adapter_was_trained(project) -> None:
    """What no adapter stands beside is what the student began with."""
    began = load_file(project / folders.start(TASK, SEED) / "model.safetensors")
    ended = load_file(project / folders.student("skd", TASK, SEED) / "model.safetensors")
    kept = [name for name in began if not name.endswith("_proj.weight")]
    assert kept
    assert all(torch.equal(began[name].bfloat16(), ended[name]) for name in kept)


def test_the_teacher_was_asked(project) -> None:
    found = json.loads((project / "metrics/distill/skd.json").read_text())
    (run,) = found["tasks"][TASK].values()
    assert run["teacher_tokens"] > 0
