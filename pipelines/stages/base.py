"""Stage `base`: puts the untrained teacher and student in place and checks that they fit.

Procedural models are made and pretrained here on the tasks' base corpora. A folder or a Hub model
is recorded, not copied. A student of kind `layers` is cut from the teacher and healed. Before
anything else the experiment's plan is asked whether it fits this device.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

from pipelines.calibration import fixed_work
from pipelines.parameters import At
from pipelines.runs.folders import BASE, STUDENT_FOLDER, TEACHER_FOLDER
from pipelines.runs.inputs import DATA
from pipelines.runs.machine import Machine
from pipelines.runs.placing import base_corpora, check_fit, materialise, pretrain, untrained
from pipelines.runs.pruning import LAYERS
from pipelines.settings.runtime import Runtime
from pipelines.stages.command import run_command, stage_parameters, took, write_metrics
from skd.errors import UserError
from skd.files import read_rows, write_folder
from skd.models import licences
from skd.models.folders import hold_in, read_reference
from skd.models.loading import load_model, load_tokenizer, measure_model
from skd.models.pairs import common_vocabulary, share_ids
from skd.models.procedural import train_tokenizer
from skd.models.settings import (
    FolderModel,
    HubModel,
    LayersModel,
    Models,
    ProceduralModel,
    StudentModel,
)
from skd.results.files import read_result
from skd.results.layers import LayerChoice
from skd.results.pair import ModelFacts, ModelOrigin, PairResult
from skd.settings import Names

_TOKENIZER_ROWS = 2000  # per task: enough for a small vocabulary


@dataclass(frozen=True)
class Parameters:
    tasks: Annotated[Names, At("experiment.tasks")]
    models: Models
    decoding_batch: Annotated[int, At("evaluate.batch_size")]
    runtime: Runtime


def base(parameters: Parameters) -> PairResult:
    """Fill models/base/{teacher,student}; returns what there is to say of the pair."""
    write_folder(BASE, lambda folder: _fill(folder, parameters))
    teacher_folder, student_folder = BASE / TEACHER_FOLDER, BASE / STUDENT_FOLDER
    teacher, student = (
        load_model(folder, dtype="auto") for folder in (teacher_folder, student_folder)
    )
    teacher_tokenizer, tokenizer = (
        load_tokenizer(folder) for folder in (teacher_folder, student_folder)
    )
    crossing = not share_ids(teacher_tokenizer, tokenizer)
    emitting = (student,) if crossing else (teacher, student)
    vocabulary = common_vocabulary(tokenizer, *emitting)
    models = parameters.models
    teacher_origin = origin(models.teacher, teacher_folder)
    return PairResult(
        took=took(Machine.of(parameters.runtime, parameters.decoding_batch).device, fixed_work()),
        teacher=ModelFacts(teacher_origin, measure_model(teacher)),
        student=ModelFacts(
            origin(models.student, student_folder, teacher_origin), measure_model(student)
        ),
        vocabulary=vocabulary.size,
        eos=list(vocabulary.eos),
        chat_template=(tokenizer if crossing else teacher_tokenizer).chat_template is not None,
        layers=read_result(student_folder / LAYERS, LayerChoice, "base")
        if isinstance(models.student, LayersModel)
        else None,
        encoder_decoder=teacher.config.is_encoder_decoder,
        cross_tokenizer=crossing,
    )


def _fill(folder: Path, parameters: Parameters) -> None:
    models = parameters.models
    teacher, student = models.teacher, models.student
    if isinstance(teacher, ProceduralModel) and isinstance(student, ProceduralModel):
        pair = {TEACHER_FOLDER: teacher, STUDENT_FOLDER: student}
        _pretrain_pair(folder, pair, parameters)
        hold_in(folder / TEACHER_FOLDER, models.teacher_weights)
        return
    if isinstance(teacher, ProceduralModel) or isinstance(student, ProceduralModel):
        raise UserError(
            "models: a procedural model's tokenizer is trained here, so teacher and student must "
            "both be procedural or both come from elsewhere"
        )
    teacher_folder, student_folder = folder / TEACHER_FOLDER, folder / STUDENT_FOLDER
    place = partial(
        materialise,
        models=models,
        teacher_folder=teacher_folder,
        tasks=parameters.tasks,
        machine=Machine.of(parameters.runtime, parameters.decoding_batch),
    )
    place(teacher_folder, "models.teacher", teacher)
    hold_in(teacher_folder, models.teacher_weights)  # as it stands while a student heals, too
    place(student_folder, "models.student", student)
    check_fit(teacher_folder, student_folder, models.template_mismatch, models.cross_tokenizer)


def _pretrain_pair(folder: Path, pair: dict[str, ProceduralModel], parameters: Parameters) -> None:
    corpora = base_corpora(parameters.tasks)
    tokenizer = train_tokenizer(
        (
            text
            for task, corpus in corpora.items()
            for row in read_rows(DATA / task / "train.jsonl")[:_TOKENIZER_ROWS]
            + corpus[:_TOKENIZER_ROWS]
            for text in (row["source"], row["target"])
        ),
        parameters.models.vocabulary,
    )
    for role, settings in pair.items():
        untrained(folder / role, settings, tokenizer)
    machine = Machine.of(parameters.runtime, parameters.decoding_batch, folder)
    pretrain({folder / role: settings for role, settings in pair.items()}, corpora, machine)


def origin(settings: StudentModel, folder: Path, teacher: ModelOrigin | None = None) -> ModelOrigin:
    """Where a model comes from and under which licence, without this machine's paths.

    Args:
        folder: where the stage has put it.
        teacher: the teacher's origin. A part of the teacher has its licence.
    """
    if isinstance(settings, FolderModel):
        path = Path(settings.path).expanduser().resolve()
        license = settings.license or licences.of_folder(path)
        return ModelOrigin(settings.kind, license, name=path.name)
    if isinstance(settings, HubModel):
        commit = read_reference(folder).revision
        assert commit is not None
        license = settings.license or licences.of_hub(settings.id, commit)
        return ModelOrigin(settings.kind, license, id=settings.id, revision=commit)
    if isinstance(settings, LayersModel):
        assert teacher is not None
        return ModelOrigin(
            settings.kind, teacher.license, teacher.name, teacher.id, teacher.revision
        )
    return ModelOrigin(settings.kind)


def check_plan() -> None:
    """Raise `UserError` for an experiment that this device's memory cannot hold.

    A command of its own: neither the plan's code nor the settings that it reads change what this
    stage makes, so neither may make the stage stale.
    """
    command = [sys.executable, "-m", "pipelines.plan", "--check"]
    status = subprocess.run(command, check=False).returncode
    if status == 2:  # as the plan's command says
        raise UserError(
            "the experiment does not fit this device (above): change the settings named there, "
            "make room where a disk has too little, or set runtime.plan: false to begin anyway"
        )
    if status:
        raise UserError(
            f"the plan could not be made (above; status {status}): set runtime.plan: false to "
            "begin without it"
        )


def main(argv: list[str] | None = None) -> None:
    parameters = stage_parameters(Parameters, __doc__, argv)
    if parameters.runtime.plan and parameters.runtime.engine == "local":  # a cluster is elsewhere
        check_plan()
    write_metrics("base", base(parameters))


if __name__ == "__main__":
    run_command(main)
