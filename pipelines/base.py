"""Stage `base`: put the untrained teacher and student in place and check that they fit.

Procedural models are made and pretrained here on the tasks' base corpora; a folder or a
Hub model is recorded, not copied; a `layers` student is cut from the teacher.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.folders import BASE
from pipelines.inputs import DATA, Task
from pipelines.stage import fingerprint, read_rows, write_metrics
from pipelines.stage import run as run_stage
from pipelines.training import Spec, save, train_run
from pipelines.workers import count, pick_device, run_jobs
from skd import licences, models
from skd.cache import check_decoder
from skd.config import (
    Budget,
    Distill,
    FolderModel,
    HubModel,
    LayersModel,
    MethodSettings,
    Optimisation,
    Params,
    ProceduralModel,
    load,
)
from skd.encode import Row
from skd.errors import UserError
from skd.files import write_folder

ROLES = ("teacher", "student")
_TOKENIZER_ROWS = 2000  # per task: enough for a small vocabulary
_HELD_OUT = 100  # rows of the base corpora that show whether pretraining worked


def base(params: Params) -> dict[str, Any]:
    """Fill models/base/{teacher,student}; returns the facts of the pair."""
    write_folder(BASE, lambda folder: _fill(folder, params))
    tokenizers = {role: models.load_tokenizer(BASE / role) for role in ROLES}
    pair = {role: models.load(BASE / role, dtype="auto") for role in ROLES}
    vocabulary = models.vocabulary(tokenizers["student"], *pair.values())
    return {
        **{role: origin(role, params) | models.describe(pair[role]) for role in ROLES},
        "vocabulary": vocabulary.size,
        "eos": list(vocabulary.eos),
        "chat_template": tokenizers["teacher"].chat_template is not None,
    }


def _fill(folder: Path, params: Params) -> None:
    settings = {"teacher": params.models.teacher, "student": params.models.student}
    made = [role for role in ROLES if isinstance(settings[role], ProceduralModel)]
    if len(made) == 1:
        raise UserError(
            "models: a procedural model's tokenizer is trained here, so teacher and student must "
            "both be procedural or both come from elsewhere"
        )
    if made:
        _pretrain_pair(folder, params)
        return
    for role in ROLES:
        _materialise(folder, role, settings[role], params)
    teacher, student = (models.load_tokenizer(folder / role) for role in ROLES)
    models.check_pair(teacher, student, params.models.template_mismatch)
    for role in ROLES:
        check_decoder(models.load(folder / role))
    if teacher.chat_template != student.chat_template and teacher.chat_template is not None:
        path = folder / "student" / "chat_template.jinja"
        path.write_text(str(teacher.chat_template), encoding="utf-8")


def _materialise(folder: Path, role: str, settings: Any, params: Params) -> None:
    target = folder / role
    if isinstance(settings, FolderModel):
        path = Path(settings.path).expanduser().resolve()
        if not (path / "config.json").exists():
            raise UserError(f"models.{role}.path: {settings.path} is no model folder (config.json)")
        models.write_reference(
            target,
            path=str(path),
            # what later stages and scratch folders depend on: the path says nothing of content
            sha256=fingerprint(path),
            trust_remote_code=params.models.trust_remote_code,
        )
    elif isinstance(settings, HubModel):
        models.write_reference(
            target,
            id=settings.id,
            revision=_commit(settings, role),
            trust_remote_code=params.models.trust_remote_code,
        )
    elif isinstance(settings, LayersModel):
        teacher = models.load(folder / "teacher")
        save(
            models.keep_layers(teacher, settings.keep),
            models.load_tokenizer(folder / "teacher"),
            target,
        )


def origin(role: str, params: Params) -> dict[str, Any]:
    """Where a model comes from and under which licence, without this machine's paths."""
    settings = getattr(params.models, role)
    facts = {"kind": settings.kind, "license": None}
    if isinstance(settings, FolderModel):
        path = Path(settings.path).expanduser().resolve()
        return facts | {
            "name": path.name,
            "license": settings.license or licences.of_folder(path),
        }
    if isinstance(settings, HubModel):
        commit = models.reference(BASE / role)["revision"]
        return facts | {
            "id": settings.id,
            "revision": commit,
            "license": settings.license or licences.of_hub(settings.id, commit),
        }
    if isinstance(settings, LayersModel):  # a part of the teacher, under its licence
        return origin("teacher", params) | {"kind": settings.kind}
    return facts


def _commit(settings: HubModel, role: str) -> str:
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
            f"models.{role}: the Hub does not give {settings.id}@{settings.revision}: {reason}\n"
            "Check the id and the network, run `huggingface-cli login` for a gated model, or "
            "download it elsewhere and name its folder: {kind: folder, path: …}"
        ) from error


# ------------------------------------------------------------------- pretrain
def _pretrain_pair(folder: Path, params: Params) -> None:
    corpora = {task: _corpus(task) for task in params.experiment.tasks}
    tokenizer = models.train_tokenizer(
        (
            text
            for task in corpora
            for row in read_rows(DATA / task / "train.jsonl")[:_TOKENIZER_ROWS]
            + corpora[task][:_TOKENIZER_ROWS]
            for text in (row["source"], row["target"])
        ),
        params.models.vocabulary,
    )
    device = pick_device(params.runtime)
    rows: list[Row] = [row for corpus in zip(*corpora.values(), strict=False) for row in corpus]
    jobs = [_pretraining(folder, role, params, tokenizer, rows, device) for role in ROLES]
    run_jobs(jobs, count(params.runtime, device))


def _corpus(task: str) -> list[dict[str, Any]]:
    path = DATA / task / "pretrain.jsonl"
    if not path.exists():
        raise UserError(
            f"{path} is missing: task {task!r} has no base corpus, which procedural models are "
            "pretrained on; use models of kind folder or hub for your own data"
        )
    return read_rows(path)


def _pretraining(
    folder: Path,
    role: str,
    params: Params,
    tokenizer: Any,
    rows: list[Row],
    device: Any,
) -> Callable[[int], None]:
    settings = getattr(params.models, role)
    # Pretraining prompts are the bare sources: the tasks' prompts come with fine-tuning.
    budget = Budget(max_prompt_tokens=256, max_new_tokens=128)

    def job(position: int) -> None:
        target = folder / role
        save(models.procedural(settings, tokenizer), tokenizer, target)
        if not settings.steps:
            return
        optimisation = Optimisation(
            steps=settings.steps,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
        )
        spec = Spec(
            name=f"base-{role}",
            settings=MethodSettings(method="sft"),
            distill=Distill(optimisation=optimisation),
            start=target,
            teacher=None,
            seed=settings.seed,
        )
        validation: list[Row] = [{**row, "references": [row["target"]]} for row in rows[:_HELD_OUT]]
        task = Task("base", "summarization", "{source}", budget, [], validation)
        facts = train_run(params, spec, task, rows[_HELD_OUT:], device, position)
        shutil.rmtree(target)
        shutil.copytree(facts["folder"], target)

    return job


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.parse_args(argv)
    params = load()
    facts = base(params)
    write_metrics("base", pick_device(params.runtime), {"pair": facts})


if __name__ == "__main__":
    run_stage(main)
