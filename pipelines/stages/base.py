"""Stage `base`: put the untrained teacher and student in place and check that they fit.

Procedural models are made and pretrained here on the tasks' base corpora; a folder or a
Hub model is recorded, not copied; a `layers` student is cut from the teacher.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pipelines.params import Params, load
from pipelines.runs.folders import BASE
from pipelines.runs.inputs import DATA
from pipelines.runs.placing import check, corpora, materialise, pretraining
from pipelines.runs.workers import count, pick_device, run_jobs
from pipelines.stages.command import run as run_stage
from pipelines.stages.command import write_metrics
from skd.errors import UserError
from skd.files import read_rows, write_folder
from skd.models import licences
from skd.models.loading import describe_model, load_model, load_tokenizer, read_reference
from skd.models.pairs import common_vocabulary
from skd.models.procedural import train_tokenizer
from skd.models.settings import FolderModel, HubModel, LayersModel, ProceduralModel

ROLES = ("teacher", "student")
_TOKENIZER_ROWS = 2000  # per task: enough for a small vocabulary


def base(params: Params) -> dict[str, Any]:
    """Fill models/base/{teacher,student}; returns the facts of the pair."""
    write_folder(BASE, lambda folder: _fill(folder, params))
    tokenizers = {role: load_tokenizer(BASE / role) for role in ROLES}
    pair = {role: load_model(BASE / role, dtype="auto") for role in ROLES}
    vocabulary = common_vocabulary(tokenizers["student"], *pair.values())
    return {
        **{role: origin(role, params) | describe_model(pair[role]) for role in ROLES},
        "vocabulary": vocabulary.size,
        "eos": list(vocabulary.eos),
        "chat_template": tokenizers["teacher"].chat_template is not None,
    }


def _fill(folder: Path, params: Params) -> None:
    settings: dict[str, Any] = {role: getattr(params.models, role) for role in ROLES}
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
        materialise(folder / role, f"models.{role}", settings[role], params, folder / "teacher")
    check(folder / "teacher", folder / "student", params)


def _pretrain_pair(folder: Path, params: Params) -> None:
    found = corpora(params.experiment.tasks)
    tokenizer = train_tokenizer(
        (
            text
            for task, corpus in found.items()
            for row in read_rows(DATA / task / "train.jsonl")[:_TOKENIZER_ROWS]
            + corpus[:_TOKENIZER_ROWS]
            for text in (row["source"], row["target"])
        ),
        params.models.vocabulary,
    )
    device = pick_device(params.runtime)
    jobs = [
        pretraining(
            folder / role,
            f"base-{role}",
            getattr(params.models, role),
            tokenizer,
            found,
            params,
            device,
        )
        for role in ROLES
    ]
    run_jobs(jobs, count(params.runtime, device))


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
        commit = read_reference(BASE / role)["revision"]
        return facts | {
            "id": settings.id,
            "revision": commit,
            "license": settings.license or licences.of_hub(settings.id, commit),
        }
    if isinstance(settings, LayersModel):  # a part of the teacher, under its licence
        return origin("teacher", params) | {"kind": settings.kind}
    return facts


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.parse_args(argv)
    params = load()
    facts = base(params)
    write_metrics("base", pick_device(params.runtime), {"pair": facts})


if __name__ == "__main__":
    run_stage(main)
