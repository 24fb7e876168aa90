"""The two models of a run, loaded as its settings hold them and where the machine has room.

Refuses to know text, and how a run trains.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from transformers import PreTrainedTokenizerBase

from pipelines.runs.machine import Machine
from skd.engine.pair import Pair
from skd.engine.positions import require_budget
from skd.engine.sources import decoder_start
from skd.models.adapters import add_adapter_
from skd.models.folders import held_in
from skd.models.loading import load_model
from skd.models.pairs import common_vocabulary
from skd.models.sharding import shard_

if TYPE_CHECKING:  # that module imports this one
    from pipelines.runs.training import RunSpec


def load_pair(
    spec: RunSpec, machine: Machine, tokenizer: PreTrainedTokenizerBase, shares_ids: bool
) -> Pair:
    """The two models with the ids that the student emits, the teacher's too if it shares them."""
    optimisation = spec.distill.optimisation
    sharded = machine.runtime.shard is not None
    student = load_model(
        spec.start_folder,
        "cpu" if sharded else machine.device,
        dropout=optimisation.dropout,
        weights=optimisation.weights,
    )
    if sharded:
        shard_(student, machine.device)
    if optimisation.adapter is not None:
        add_adapter_(student, optimisation.adapter, spec.seed)
    lengths = (spec.task.budget.max_prompt_tokens, spec.task.budget.max_new_tokens)
    require_budget(student, *lengths, len(decoder_start(student)))
    if spec.teacher_folder is None:
        return Pair(student, None, common_vocabulary(tokenizer, student))
    teacher = load_model(
        spec.teacher_folder,
        machine.device,
        dtype=torch.float32 if machine.device.type == "cpu" else torch.bfloat16,
        weights=held_in(spec.teacher_folder),
        layers=machine.runtime.teacher_device,
    )
    require_budget(teacher, *lengths, len(decoder_start(teacher)))
    teacher.requires_grad_(False)
    emitting = (student, teacher) if shares_ids else (student,)
    return Pair(student, teacher, common_vocabulary(tokenizer, *emitting))
