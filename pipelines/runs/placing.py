"""Puts an untrained model in its folder, and checks that a student fits its teacher.

Used by the stages that begin with untrained models. Refuses to know experiments and methods.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from pipelines.runs.engines import run_jobs
from pipelines.runs.inputs import DATA, TaskData
from pipelines.runs.machine import Machine
from pipelines.runs.pruning import prune
from pipelines.runs.scratch import fingerprint
from pipelines.runs.specs import tuning
from pipelines.runs.training import MODEL, save_model
from skd.data.record import ExampleRow, read_examples
from skd.engine.checking import check_decoder
from skd.engine.sources import decoder_start
from skd.errors import UserError, refusal
from skd.models.folders import ModelReference, write_reference
from skd.models.loading import is_encoder_decoder, load_model, load_tokenizer
from skd.models.pairs import check_kinds, check_pair, check_starts, share_ids
from skd.models.procedural import procedural_model
from skd.models.settings import Budget, FolderModel, HubModel, LayersModel, Models, ProceduralModel
from skd.training.settings import Optimisation

PRETRAINING_HELD_OUT = 100  # rows of the base corpora that show whether pretraining worked
# Pretraining prompts are the bare sources: the tasks' prompts come with fine-tuning.
PRETRAINING_BUDGET = Budget(max_prompt_tokens=256, max_new_tokens=128)


def materialise(
    target: Path,
    parameter: str,
    settings: FolderModel | HubModel | LayersModel,
    models: Models,
    teacher_folder: Path,
    tasks: Sequence[str],
    machine: Machine,
) -> None:
    """Fill `target` with a reference to a model elsewhere, or with a part of the teacher.

    Args:
        parameter: where the settings stand in params.yaml, for messages.
        tasks: those whose training rows say what a part of the teacher is worth.
    """
    if isinstance(settings, FolderModel):
        try:
            path = Path(settings.path).expanduser().resolve()
        except RuntimeError as error:  # `~nobody`, or links in a circle
            raise UserError(f"{parameter}.path: {settings.path}: {error}") from None
        if not (path / "config.json").exists():
            raise UserError(f"{parameter}.path: {settings.path} is no model folder (config.json)")
        reference = ModelReference(
            path=str(path),
            # Later stages and scratch folders depend on it
            sha256=fingerprint(path),
            trust_remote_code=models.trust_remote_code,
            languages=models.languages,
        )
        write_reference(target, reference)
    elif isinstance(settings, HubModel):
        reference = ModelReference(
            id=settings.id,
            revision=_commit(settings, parameter),
            trust_remote_code=models.trust_remote_code,
            languages=models.languages,
        )
        write_reference(target, reference)
    elif is_encoder_decoder(teacher_folder):
        raise UserError(
            f"{parameter}: layers are kept of decoders alone; take a student of kind folder or hub "
            "for an encoder–decoder"
        )
    else:
        prune(target, parameter, settings, teacher_folder, tasks, machine)


def check_fit(
    teacher_folder: Path,
    student_folder: Path,
    template_mismatch: str,
    cross_tokenizer: str | None = None,
) -> None:
    """Raise `UserError` for a pair that cannot be distilled; give the student the template.

    Across two tokenizers each model keeps its own template, ends and start.

    Args:
        template_mismatch, cross_tokenizer: as in the section `models`.
    """
    teacher, student = (load_tokenizer(folder) for folder in (teacher_folder, student_folder))
    crossing = cross_tokenizer is not None and not share_ids(teacher, student)
    if not crossing:
        check_pair(teacher, student, template_mismatch)
    check_kinds(is_encoder_decoder(teacher_folder), is_encoder_decoder(student_folder))
    starts = []
    for folder in (teacher_folder, student_folder):
        # In its files' format, so that a large one fits the host; sampling checks it in its own
        model = load_model(folder, dtype="auto")
        check_decoder(model.bfloat16() if model.dtype is torch.float16 else model)
        starts.append(decoder_start(model))
    if crossing:
        return
    check_starts(*starts)
    if teacher.chat_template != student.chat_template and teacher.chat_template is not None:
        path = student_folder / "chat_template.jinja"
        path.write_text(str(teacher.chat_template), encoding="utf-8")


def _commit(settings: HubModel, parameter: str) -> str:
    """The commit that a Hub revision stands for today. Raises `UserError` without access.

    One that is a commit is not asked for: a model in the Hub's local cache needs no network.
    """
    if re.fullmatch("[0-9a-f]{40}", settings.revision):
        return settings.revision
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
        raise refusal(error)(
            f"{parameter}: the Hub does not give {settings.id}@{settings.revision}: {reason}\n"
            "Check the id and the network, run `huggingface-cli login` for a gated model, or "
            "download it elsewhere and name its folder: {kind: folder, path: …}"
        ) from error


# ------------------------------------------------------------------- pretraining
def base_corpora(tasks: Sequence[str]) -> dict[str, list[ExampleRow]]:
    """Each task's base corpus. Raises `UserError` for a task that has none."""
    return {task: _base_corpus(task) for task in tasks}


def _base_corpus(task: str) -> list[ExampleRow]:
    path = DATA / task / "pretrain.jsonl"
    if not path.exists():
        raise UserError(
            f"{path} is missing: task {task!r} has no base corpus, which procedural models are "
            "pretrained on; use models of kind folder or hub for your own data"
        )
    return read_examples(path)


def pretrain(
    targets: Mapping[Path, ProceduralModel],
    corpora: dict[str, list[ExampleRow]],
    machine: Machine,
) -> None:
    """Train the models in these folders on the corpora, a row of each by turns."""
    rows = [row for turn in zip(*corpora.values(), strict=False) for row in turn]
    held_out = [
        ExampleRow(
            id=row["id"], source=row["source"], target=row["target"], references=[row["target"]]
        )
        for row in rows[:PRETRAINING_HELD_OUT]
    ]
    task = TaskData(
        "base",
        "summarization",
        "{source}",
        PRETRAINING_BUDGET,
        rows[PRETRAINING_HELD_OUT:],
        held_out,
    )
    trained = {target: settings for target, settings in targets.items() if settings.steps}
    jobs = [
        tuning(
            f"base-{target.name}",
            task,
            target,
            Optimisation(settings.steps, settings.batch_size, settings.learning_rate),
            settings.seed,
        )
        for target, settings in trained.items()
    ]
    for target, run in zip(trained, run_jobs(jobs, machine), strict=True):
        shutil.rmtree(target)
        shutil.copytree(run.folder / MODEL, target)


def untrained(target: Path, settings: ProceduralModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Fill `target` with a model made here."""
    save_model(procedural_model(settings, tokenizer), tokenizer, target)
