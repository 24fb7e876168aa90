"""The arithmetic of time: what a device was seen to do, and how often a run asks it to.

A pass of n tokens through a model takes as long as its products or as reading its weights,
whichever is longer, and its launches besides. Knows runs and a measured speed, and no memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from pipelines.planning.sizes import Sizes
from pipelines.planning.work import Testing, Training
from skd.engine.meter import Stopwatch, wait
from skd.training.methods import ResponseSource

# Launches of a layer's forward pass, and the passes' worth of work in forward and backward
_LAUNCHES, _FORWARD_AND_BACKWARD = 45, 3
# What nobody knows before a run: the share of proposals that the teacher accepts, and the block
# that is chosen by it where the settings leave the block open
_ACCEPTED, _AUTO_BLOCK = 0.85, 4
# Of the calibration: products of so many rows and columns; so many times as many weights to read,
# more than a processor's caches hold
_SIZE, _READ, _ROUNDS = 1024, 64, 3


@dataclass(frozen=True)
class Speed:
    """Of one run on a device; on a CPU of one core."""

    # Floating-point operations in large products
    operations: float
    # Bytes of weights read
    bytes: float
    # Seconds
    launch: float


def calibrate(device: torch.device) -> Speed:
    """Time three fixed pieces of work: large products, a row by many weights, small launches."""
    kind = torch.float32 if device.type == "cpu" else torch.bfloat16
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        weights = torch.ones(_READ * _SIZE, _SIZE, dtype=kind, device=device)
        many, one = weights[:_SIZE], weights[:1]
        few = weights[: 4 * _SIZE]
        small = torch.ones(8, device=device)
        products = _least(lambda: many @ few.T, device)
        reading = _least(lambda: one @ weights.T, device)
        launches = _least(lambda: [small + 1 for _ in range(100)], device)
    finally:
        torch.set_num_threads(threads)
    return Speed(
        operations=2 * _SIZE * few.numel() / products,
        bytes=weights.numel() * weights.element_size() / reading,
        launch=launches / 100,
    )


def _least(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of the quickest of a few rounds, by the clock that runs are timed with."""
    rounds = []
    for _ in range(_ROUNDS):
        wait(device)
        watch = Stopwatch(device)
        work()
        wait(device)
        watch.lap("work")
        rounds.append(watch.total)
    return min(rounds)


# -------------------------------------------------------------------------- passes
def body(model: Sizes) -> int:
    """Parameters that every token goes through: all but the embeddings, and but an encoder's."""
    encoder = 0 if model.encoder is None else model.encoder.parameters
    return model.parameters - model.embedding * (1 if model.tied else 2) - encoder


def forward(model: Sizes, tokens: float, predicted: float, width: int, speed: Speed) -> float:
    """max(2 × (body × tokens + embedding × predicted) / operations, weights / bytes) + launches

    predicted: tokens whose logits are made.
    """
    products = 2 * (body(model) * tokens + model.embedding * predicted) / speed.operations
    reading = width * (body(model) + model.embedding) / speed.bytes
    return max(products, reading) + model.layers * _LAUNCHES * speed.launch


def reading(model: Sizes, tokens: float, speed: Speed) -> float:
    """The pass of so many tokens of prompts, through the encoder where there is one"""
    return forward(model.encoder or model, tokens, 0, 4, speed)


def whole(model: Sizes, prompts: float, responses: float, predicted: float, speed: Speed) -> float:
    """The pass of whole rows, with so many tokens of prompts and of responses"""
    if model.encoder is None:
        return forward(model, prompts + responses, predicted, 4, speed)
    return reading(model, prompts, speed) + forward(model, responses, predicted, 4, speed)


def decoding(model: Sizes, rows: float, prompt: float, new: float, speed: Speed) -> float:
    """The prompts' pass, then one pass of a token a row for each new token"""
    each = forward(model, rows, rows, 4, speed)
    return reading(model, rows * prompt, speed) + new * each


def interleaving(run: Training, rows: float, prompt: float, new: float, speed: Speed) -> float:
    """As `decoding`, with γ student passes and one teacher pass for each block of kept tokens"""
    assert run.teacher is not None
    block = _AUTO_BLOCK if run.distill.block_size == "auto" else run.distill.block_size
    blocks = new / sum(_ACCEPTED**place for place in range(block))
    own = decoding(run.student, rows, prompt, blocks * block, speed)
    verified = forward(run.teacher, rows * block, rows * block, 4, speed)
    return own + reading(run.teacher, rows * prompt, speed) + blocks * verified


# ------------------------------------------------------------------------------ runs
def training_seconds(run: Training, decoding_batch: int, speed: Speed) -> float:
    """steps × (response + loss) + validations; responses of the teacher's once"""
    prompt, known = run.rows.mean
    rows, steps = run.rows_per_step, run.optimisation.steps
    shares = _shares(run)
    response = max(known, run.max_new_tokens) if run.sampled else known
    prompts, predicted = rows * prompt, rows * response
    passes = _FORWARD_AND_BACKWARD + run.optimisation.gradient_checkpointing
    step = passes * whole(run.student, prompts, predicted, predicted, speed)
    if run.teacher is not None and run.method.needs_teacher:
        fresh = 0.0 if run.interleaved else 1.0
        step += whole(run.teacher, fresh * prompts, fresh * predicted, predicted, speed)
    together = run.distill.rollout_steps
    if share := shares.get(ResponseSource.STUDENT, 0.0):
        sampling = decoding(run.student, share * rows * together, prompt, run.max_new_tokens, speed)
        step += sampling / together
    if share := shares.get(ResponseSource.INTERLEAVED, 0.0):
        sampling = interleaving(run, share * rows * together, prompt, run.max_new_tokens, speed)
        step += sampling / together
    once = 0.0
    if ResponseSource.TEACHER in shares and run.teacher is not None:
        once = _split(run.teacher, run.rows.count, decoding_batch, prompt, run, speed)
    held = run.held_out
    checked = _split(run.student, held.count, decoding_batch, held.mean[0], run, speed)
    return steps * step + run.optimisation.validations * checked + once


def testing_seconds(test: Testing, decoding_batch: int, speed: Speed) -> float:
    """decodings of a batch × batches"""
    rows, batches = min(test.prompts, decoding_batch), -(-test.prompts // decoding_batch)
    return batches * decoding(test.model, rows, test.prompt, test.max_new_tokens, speed)


def _split(
    model: Sizes, examples: int, at_once: int, prompt: float, run: Training, speed: Speed
) -> float:
    rows = min(examples, at_once)
    batches = -(-examples // at_once)
    return batches * decoding(model, rows, prompt, run.max_new_tokens, speed)


def _shares(run: Training) -> dict[ResponseSource, float]:
    """Source -> the share of a step's rows whose responses come from it, over the run."""
    method = run.method
    if method.paired:
        return {method.response: 0.5, method.otherwise: 0.5}
    first = method.coin * (1.0 - method.start)
    shares = {method.response: first}
    if first < 1.0:
        shares[method.otherwise] = shares.get(method.otherwise, 0.0) + 1.0 - first
    return shares
