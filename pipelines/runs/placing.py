"""Putting one untrained model in its folder, and checking that a student fits its teacher.

Used by the stages that begin with untrained models; knows no experiment and no method.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from pipelines.params import Params
from pipelines.runs.inputs import DATA, Task
from pipelines.runs.jobs import tuning
from pipelines.runs.scratch import fingerprint
from pipelines.runs.training import save
from skd.engine.cache import check_decoder
from skd.errors import UserError
from skd.files import read_rows
from skd.models.encoding import Row
from skd.models.layers import keep_layers
from skd.models.loading import load_model, load_tokenizer, write_reference
from skd.models.pairs import check_pair
from skd.models.procedural import procedural_model
from skd.models.settings import Budget, FolderModel, HubModel, LayersModel, ProceduralModel
from skd.training.settings import Optimisation

_HELD_OUT = 100  # rows of the base corpora that show whether pretraining worked


def materialise(
    target: Path,
    parameter: str,
    settings: FolderModel | HubModel | LayersModel,
    params: Params,
    teacher: Path,
) -> None:
    """A reference to a model elsewhere, or a part of the teacher. `parameter`: for messages."""
    if isinstance(settings, FolderModel):
        path = Path(settings.path).expanduser().resolve()
        if not (path / "config.json").exists():
            raise UserError(f"{parameter}.path: {settings.path} is no model folder (config.json)")
        write_reference(
            target,
            path=str(path),
            # what later stages and scratch folders depend on: the path says nothing of content
            sha256=fingerprint(path),
            trust_remote_code=params.models.trust_remote_code,
        )
    elif isinstance(settings, HubModel):
        write_reference(
            target,
            id=settings.id,
            revision=_commit(settings, parameter),
            trust_remote_code=params.models.trust_remote_code,
        )
    else:
        part = keep_layers(load_model(teacher), settings.keep)
        save(part, load_tokenizer(teacher), target)


def check(teacher: Path, student: Path, params: Params) -> None:
    """Raise `UserError` for a pair that cannot be distilled; gives the student the template."""
    ours, theirs = (load_tokenizer(folder) for folder in (teacher, student))
    check_pair(ours, theirs, params.models.template_mismatch)
    for folder in (teacher, student):
        check_decoder(load_model(folder))
    if ours.chat_template != theirs.chat_template and ours.chat_template is not None:
        path = student / "chat_template.jinja"
        path.write_text(str(ours.chat_template), encoding="utf-8")


def _commit(settings: HubModel, parameter: str) -> str:
    """The commit that a Hub revision stands for today. Raises `UserError` without access."""
    import httpx
    import requests
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        return str(HfApi().model_info(settings.id, revision=settings.revision).sha)
    except (
        HfHubHTTPError,
        OfflineModeIsEnabled,
        requests.RequestException,
        httpx.HTTPError,
    ) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{parameter}: the Hub does not give {settings.id}@{settings.revision}: {reason}\n"
            "Check the id and the network, run `huggingface-cli login` for a gated model, or "
            "download it elsewhere and name its folder: {kind: folder, path: …}"
        ) from error


# ------------------------------------------------------------------- pretrain
def corpora(tasks: Sequence[str]) -> dict[str, list[Row]]:
    """Each task's base corpus. Raises `UserError` for a task that has none."""
    return {task: _corpus(task) for task in tasks}


def _corpus(task: str) -> list[Row]:
    path = DATA / task / "pretrain.jsonl"
    if not path.exists():
        raise UserError(
            f"{path} is missing: task {task!r} has no base corpus, which procedural models are "
            "pretrained on; use models of kind folder or hub for your own data"
        )
    return list(read_rows(path))


def pretraining(
    target: Path,
    name: str,
    settings: ProceduralModel,
    tokenizer: PreTrainedTokenizerBase,
    corpora: dict[str, list[Row]],
    params: Params,
    device: torch.device,
) -> Callable[[int], None]:
    """The job that fills `target` with a model made here, trained on the corpora by turns."""
    rows: list[Row] = [row for turn in zip(*corpora.values(), strict=False) for row in turn]
    # Pretraining prompts are the bare sources: the tasks' prompts come with fine-tuning.
    budget = Budget(max_prompt_tokens=256, max_new_tokens=128)
    validation: list[Row] = [{**row, "references": [row["target"]]} for row in rows[:_HELD_OUT]]
    task = Task("base", "summarization", "{source}", budget, rows[_HELD_OUT:], validation)

    def job(line: int) -> None:
        save(procedural_model(settings, tokenizer), tokenizer, target)
        if not settings.steps:
            return
        optimisation = Optimisation(
            steps=settings.steps,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
        )
        run = tuning(params, name, task, target, optimisation, settings.seed, None, device)
        facts = run(line)
        shutil.rmtree(target)
        shutil.copytree(facts["folder"], target)

    return job
