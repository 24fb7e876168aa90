"""A student made of its teacher's layers: chosen by importance or by hand, then healed.

Layers are measured on training rows that healing does not see. The rounds of a choice and the
steps of healing are kept in scratch, so that what was interrupted goes on. Refuses to know stages,
and never reads a validation or test split.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pipelines.closure import code_of
from pipelines.runs.inputs import DATA, TaskData, read_card
from pipelines.runs.jobs import finish
from pipelines.runs.machine import Machine
from pipelines.runs.scratch import alone, fingerprint, key
from pipelines.runs.training import MODEL, RunSpec, save_model
from skd.data.record import ExampleRow, read_examples
from skd.engine.sequences import collate
from skd.errors import UserError
from skd.models.encoding import encode
from skd.models.importance import (
    Calibration,
    evenly_spaced,
    layer_count,
    losses_without_each,
    text_loss,
)
from skd.models.layers import keep_layers
from skd.models.loading import load_model, load_tokenizer
from skd.models.pairs import common_vocabulary
from skd.models.settings import Budget, Healing, LayersModel, StudentModel
from skd.results.files import first_complaint, write_result
from skd.results.layers import LayerChoice, LayerRounds, LeftOut
from skd.training.settings import Distill, MethodSettings, Optimisation

LAYERS = "layers.json"
HEALING_BUDGET = Budget(max_prompt_tokens=512, max_new_tokens=256, too_long="truncate")
HEALING_METHOD = MethodSettings(method="supervised_kd")
_ROWS_AT_ONCE = 4
# Rows that healing is validated on: once, at its end, which selects nothing
_VALIDATED = 1
_SEED = 0


def prune(
    target: Path,
    parameter: str,
    settings: LayersModel,
    teacher_folder: Path,
    tasks: Sequence[str],
    machine: Machine,
) -> None:
    """Fill `target` with a student and with what is known of its layers.

    parameter: where the settings stand in params.yaml, for messages.
    """
    # As it is stored: half precision tells layers apart, at half the memory
    teacher = load_model(teacher_folder, machine.device, dtype="auto")
    tokenizer = load_tokenizer(teacher_folder)
    layers = layer_count(teacher)
    if settings.count is not None and settings.count >= layers:
        raise UserError(
            f"{parameter}.count: {settings.count} must be below {layers}, "
            f"the number of the teacher's layers"
        )
    measured_on, others = _rows(tasks, settings.calibration_rows)
    calibration = _calibration(measured_on, tokenizer, teacher)
    rounds: list[dict[int, float]] = []
    if settings.keep is None:
        assert settings.count is not None
        path = _rounds_path(teacher_folder, measured_on, machine)
        rounds = _choose(teacher, layers - settings.count, calibration, path, machine)
    kept = _left(layers, rounds) if settings.keep is None else settings.keep
    save_model(keep_layers(load_model(teacher_folder), kept), tokenizer, target)
    whole = text_loss(teacher, range(layers), calibration)
    choice = LayerChoice(
        kept=kept,
        rows=len(measured_on),
        tokens=calibration.tokens,
        whole_loss=whole,
        cut_loss=text_loss(teacher, kept, calibration),
        even_loss=text_loss(teacher, evenly_spaced(layers, len(kept)), calibration),
        healed_loss=None,
        importance=[loss - whole for loss in rounds[0].values()] if rounds else [],
        left_out=[LeftOut(layer := _least(each), each[layer]) for each in rounds],
    )
    if settings.heal is not None:
        _heal(target, settings.heal, teacher_folder, others, measured_on, machine)
        healed = load_model(target, machine.device, dtype=teacher.dtype)
        choice = replace(choice, healed_loss=text_loss(healed, range(len(kept)), calibration))
    write_result(target / LAYERS, choice)


# ------------------------------------------------------------------------ the choice
def _choose(
    model: PreTrainedModel, count: int, calibration: Calibration, path: Path, machine: Machine
) -> list[dict[int, float]]:
    """As many rounds; those that stand in scratch are not measured again.

    The rounds do not depend on how many there are to be: a smaller student goes on from a larger.
    """
    layers = layer_count(model)
    with alone(path):
        known = _known_rounds(path)
        rounds = known[:count]
        passes = [(layers - done) * len(calibration.batches) for done in range(count)]
        with tqdm(
            total=sum(passes),
            initial=sum(passes[: len(rounds)]),
            desc="choosing layers",
            unit=" passes",
            disable=not machine.runtime.progress,
        ) as bar:
            while len(rounds) < count:
                kept = _left(layers, rounds)
                rounds.append(losses_without_each(model, kept, calibration, bar.update))
                write_result(path, LayerRounds(rounds))
    return rounds


def _known_rounds(path: Path) -> list[dict[int, float]]:
    """Of an earlier choice; none where its file is missing or damaged."""
    try:
        return TypeAdapter(LayerRounds).validate_json(path.read_bytes()).rounds
    except FileNotFoundError:
        return []
    except ValidationError as error:
        print(f"{path} is damaged ({first_complaint(error)}): made anew", file=sys.stderr)
        return []


def _left(layers: int, rounds: Sequence[dict[int, float]]) -> list[int]:
    """The layers that stand after these rounds, in order."""
    return sorted(set(range(layers)) - {_least(each) for each in rounds})


def _least(losses: dict[int, float]) -> int:
    """The layer whose absence costs least; of equals the first."""
    return min(losses, key=lambda layer: losses[layer])


def _rounds_path(teacher_folder: Path, rows: Sequence[ExampleRow], machine: Machine) -> Path:
    name = key(
        fingerprint(teacher_folder),
        list(rows),
        machine.device.type,
        code_of("skd.models.importance"),
    )
    return machine.scratch / f"layers-{name}.json"


# ------------------------------------------------------------------------ the rows
def _rows(tasks: Sequence[str], count: int) -> tuple[list[ExampleRow], list[ExampleRow]]:
    """The tasks' training rows by turns: those that are measured on, and the others.

    The prompts are written out, since each task has its own. At most half are measured on.
    """
    turns = zip(*(_prompted(task) for task in tasks), strict=False)
    rows = [row for turn in turns for row in turn]
    count = min(count, len(rows) // 2)
    if not count:
        raise UserError(
            f"{len(rows)} training rows are too few to measure layers on; expected 2 or more"
        )
    return rows[:count], rows[count:]


def _prompted(task: str) -> list[ExampleRow]:
    prompt = read_card(DATA / task).prompt
    return [
        ExampleRow(
            id=f"{task}-{row['id']}",
            source=prompt.replace("{source}", row["source"]),
            target=row["target"],
            references=[row["target"]],
        )
        for row in read_examples(DATA / task / "train.jsonl")
    ]


def _calibration(
    rows: Sequence[ExampleRow], tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel
) -> Calibration:
    """Rows of like length together."""
    vocabulary = common_vocabulary(tokenizer, model)
    examples = encode(rows, "{source}", tokenizer, HEALING_BUDGET, vocabulary=vocabulary).examples
    examples.sort(key=lambda example: len(example.prompt) + len(example.response))
    batches = [
        collate(examples[start : start + _ROWS_AT_ONCE], vocabulary.pad).to(model.device)
        for start in range(0, len(examples), _ROWS_AT_ONCE)
    ]
    return Calibration(batches, vocabulary.size)


# ------------------------------------------------------------------------ healing
def healed(student: StudentModel) -> Healing | None:
    """How a student is healed; None: it is not."""
    return student.heal if isinstance(student, LayersModel) else None


def healing(settings: Healing, held_out: int) -> Distill:
    """What healing is of all runs. held_out: rows that it may be validated on."""
    optimisation = Optimisation(
        steps=settings.steps,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        weights=settings.weights,
        validation_examples=min(_VALIDATED, held_out),
    )
    return Distill(optimisation=optimisation)


def _heal(
    target: Path,
    settings: Healing,
    teacher_folder: Path,
    rows: Sequence[ExampleRow],
    held_out: Sequence[ExampleRow],
    machine: Machine,
) -> None:
    """Distil the whole teacher into the student in `target`, on the rows of all tasks."""
    # The kind names the metric of the one validation.
    task = TaskData("heal", "summarization", "{source}", HEALING_BUDGET, list(rows), list(held_out))
    spec = RunSpec(
        name="heal",
        task=task,
        settings=HEALING_METHOD,
        distill=healing(settings, len(held_out)),
        start_folder=target,
        teacher_folder=teacher_folder,
        seed=_SEED,
    )
    run = finish(spec, machine)
    shutil.rmtree(target)
    shutil.copytree(run.folder / MODEL, target)
