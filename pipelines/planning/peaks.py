"""What a run holds at its worst moment: the phases of a run as sums of the parts of memory.

A phase is a time of a run at which certain parts are there together; the peak is the largest phase.
Knows runs and the arithmetic of memory; refuses to know what a device has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipelines.planning import memory
from pipelines.planning.devices import Device
from pipelines.planning.work import Testing, Training
from skd.engine.pace import PLAIN_BLOCK, Pace
from skd.models.placement import OFFLOAD

# Part -> bytes
Parts = Mapping[str, int]


@dataclass(frozen=True)
class Peak:
    """The largest phase of a run."""

    phase: str
    parts: Parts

    @property
    def bytes(self) -> int:
        return sum(self.parts.values())


def training_peak(run: Training, device: Device, decoding_batch: int) -> Peak:
    """decoding_batch: prompts that are decoded together, as `evaluate.batch_size` says."""
    held = _held(run, device)
    phases = {
        "loss": _loss(run, device),
        "backward": _backward(run),
        "optimiser": _optimiser(run),
        "validation": _validation(run, device, decoding_batch),
    }
    if run.sampled:
        phases["rollout"] = _rollout(run, device)
    peak = max((Peak(name, held | own) for name, own in phases.items()), key=lambda p: p.bytes)
    if device.kind != "cpu":
        return peak
    # The best weights are read back at the end. On a CPU the process still has what it freed, as
    # `pipelines.stages.command` asks for, and elsewhere the copy stands in the host's memory.
    trained = run.student.trainable(run.optimisation.adapter)
    copy = {"copy of the student": trained * memory.width(run.optimisation.weights)}
    return Peak(f"{peak.phase}, then the best weights", {**peak.parts, **copy})


def testing_peak(test: Testing, device: Device, decoding_batch: int) -> Peak:
    """A model that decodes a split greedily, in fp32 unless it is held in less."""
    weights = test.model.weights or "float32"
    width = memory.width(weights)
    rows = min(decoding_batch, test.prompts)
    slots = test.prompt + test.max_new_tokens + Pace.largest_auto
    return Peak(
        "decoding",
        {
            "process": device.process,
            "products' code": memory.products_code(device.kind, weights),
            "weights": memory.held(test.model, weights),
            "caches": memory.cache(test.model, rows, slots, width),
            "logits": memory.drawing(test.model, rows, PLAIN_BLOCK, interleaved=False),
            "activations": memory.prefill(test.model, rows, test.prompt, width),
        },
    )


def _held(run: Training, device: Device) -> dict[str, int]:
    """What is there in every phase, from the first step's end on."""
    taught, formats = 0, [run.optimisation.weights]
    if run.teacher is not None:
        formats.append(memory.taught_in(run.teacher, device.kind))
        taught = memory.here(run.teacher, formats[-1])
    return {
        "process": device.process,
        "products' code": memory.products_code(device.kind, *formats),
        "weights": memory.trained(run.student, run.optimisation) + taught,
        "optimiser": memory.optimiser(run.student, run.optimisation),
        "kept states": _states(run, device),
    }


def _states(run: Training, device: Device) -> int:
    """The teacher's, of all steps that share a rollout."""
    if run.teacher is None or not run.method.needs_teacher:
        return 0
    width = memory.width(memory.taught_in(run.teacher, device.kind))
    return memory.kept_states(run.teacher, _rollout_rows(run), run.width, width)


def _loss(run: Training, device: Device) -> dict[str, int]:
    """The forward pass is over. Micro-batches but the first find gradients there; on a CPU the
    process keeps the memory of freed ones, in pieces that few activations fit into.
    """
    compute, rows = _compute(run, device), run.rows_at_once
    teacher = run.teacher if run.method.needs_teacher else None
    again = run.optimisation.gradient_checkpointing
    there = rows < run.rows_per_step or device.kind == "cpu"
    return {
        "gradients": memory.gradients(run.student, run.optimisation) if there else 0,
        "head's gradient": memory.head_gradient(run.student, run.optimisation),
        "activations": memory.activations(run.student, rows, run.decoded, compute, again)
        + memory.source_activations(run.student, rows, run.source, run.decoded, compute, again)
        + memory.compute_copies(run.student, run.optimisation, compute),
        "logits": memory.chunk_logits(run.student, teacher, device.kind),
    }


def _backward(run: Training) -> dict[str, int]:
    """The backward pass ends: a tied embedding's gradient is made beside the head's."""
    return {
        "gradients": memory.gradients(run.student, run.optimisation),
        "head's gradient": memory.head_gradient(run.student, run.optimisation),
    }


def _optimiser(run: Training) -> dict[str, int]:
    """Master copies are changed by gradients in fp32, which take the others' place."""
    full = memory.full_gradients(run.student, run.optimisation)
    return {"gradients": full or memory.gradients(run.student, run.optimisation)}


def _compute(run: Training, device: Device) -> int:
    """Bytes of what a student's products read and give."""
    return min(memory.compute_width(device.kind), memory.width(run.optimisation.weights))


def _rollout(run: Training, device: Device) -> dict[str, int]:
    """Both caches, and the states once in the rollout and once gathered."""
    rows, compute = _rollout_rows(run), _compute(run, device)
    own = memory.width(run.optimisation.weights)
    block = run.distill.block_size
    gamma = Pace.largest_auto if block == "auto" else block
    slots = run.prompt + run.max_new_tokens + gamma
    caches = memory.cache(run.student, rows, slots, own)
    work = memory.prefill(run.student, rows, run.prompt, compute)
    gathered, width = 0, memory.FULL
    if run.teacher is not None:
        width = memory.width(memory.taught_in(run.teacher, device.kind))
    if run.interleaved and run.teacher is not None:
        if run.teacher.layers_at in (None, OFFLOAD):
            caches += memory.cache(run.teacher, rows, slots, width)
        work = max(work, memory.prefill(run.teacher, rows, run.prompt, width))
        gathered = memory.kept_states(run.teacher, rows, slots, width)
    elif run.teacher is not None:
        work = max(work, memory.layer_work(run.teacher, rows, run.width, width))
    plain = not run.interleaved and block == "auto"
    return {
        "gradients": memory.gradients(run.student, run.optimisation),
        "caches": caches + gathered,
        "logits": memory.drawing(
            run.student, rows, PLAIN_BLOCK if plain else gamma, run.interleaved
        ),
        "activations": work,
    }


def _validation(run: Training, device: Device, decoding_batch: int) -> dict[str, int]:
    """The held-out prompts decoded, then their known responses read."""
    rows = min(decoding_batch, run.held_out.count)
    prompt = max(run.held_out.prompts)
    known = max(run.held_out.responses)
    slots = prompt + run.max_new_tokens + Pace.largest_auto
    own = memory.width(run.optimisation.weights)
    decoding = {
        "caches": memory.cache(run.student, rows, slots, own),
        "logits": memory.drawing(run.student, rows, PLAIN_BLOCK, interleaved=False),
        "activations": memory.prefill(run.student, rows, prompt, own),
    }
    reading = {
        "logits": memory.chunk_logits(run.student, run.teacher, device.kind),
        "activations": memory.layer_work(run.student, rows, prompt + known, own),
    }
    worse = max(decoding, reading, key=lambda parts: sum(parts.values()))
    return {"gradients": memory.gradients(run.student, run.optimisation), **worse}


def _rollout_rows(run: Training) -> int:
    return run.rows_per_step * min(run.distill.rollout_steps, run.optimisation.steps)
