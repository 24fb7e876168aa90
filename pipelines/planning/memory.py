"""The arithmetic of memory: what each part takes at once, in bytes, one function per part.

Students are trained in fp32. On an accelerator their products are computed in bf16 from copies made
on the way, and a teacher is in bf16. Knows sizes and lengths; refuses to know experiments and what
a device has.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.planning.sizes import Sizes
from skd.engine.cache import PREFILL_ROWS
from skd.training.losses import CHUNK_LOGITS

# Bytes of a number in fp32, in which weights, gradients, moments and norms are
FULL = 4


@dataclass(frozen=True)
class Widths:
    """Bytes of a number on a kind of device."""

    # Of a teacher's weights, states and caches
    teacher: int
    # Of what a student's products read and give
    compute: int


def widths(device: str) -> Widths:
    """fp32 throughout on a CPU; bf16 teachers and bf16 products elsewhere."""
    return Widths(teacher=4, compute=4) if device == "cpu" else Widths(teacher=2, compute=2)


# --------------------------------------------------------------------- models
def weights(model: Sizes, width: int = FULL) -> int:
    """parameters × width"""
    return model.parameters * width


def gradients(model: Sizes) -> int:
    """parameters × 4; they stay until the next step begins"""
    return model.parameters * FULL


def moments(model: Sizes) -> int:
    """parameters × 2 × 4: AdamW's two means, from the end of the first step on"""
    return model.parameters * 2 * FULL


def compute_copies(model: Sizes, compute: int) -> int:
    """parameters × 2 where products are in bf16 and weights are not; kept for the backward pass"""
    return 0 if compute == FULL else model.parameters * compute


# ----------------------------------------------------------------- a training step
def activations(
    model: Sizes, rows: int, length: int, compute: int, checkpointing: bool = False
) -> int:
    """layers × layer, or with checkpointing layers × rows × length × hidden × 4 + one layer;
    and the final norm: rows × length × 2 × hidden × 4
    """
    tokens = rows * length
    layer = layer_activations(model, rows, length, compute)
    last = 2 * tokens * model.hidden * FULL
    if checkpointing:
        return model.layers * tokens * model.hidden * FULL + layer + last
    return model.layers * layer + last


def layer_activations(model: Sizes, rows: int, length: int, compute: int) -> int:
    """What one layer keeps for its backward pass, with tokens = rows × length:

    norms           tokens × norms × 2 × hidden × 4            input and normalised input
    their results   tokens × inputs × hidden × compute         as many as there are copies of them
    attention       tokens × 4 × queries × compute             q, k, v and their result
    mask            length² × compute
    scores          rows × heads × length² × 2 × compute       of eager attention alone
    feed-forward    tokens × 2 × gates × feed_forward × compute

    k and v count as repeated for each head. In fp32 a norm's result is one tensor, whoever reads
    it; in bf16 each of the 3 + gates products makes its own copy.
    """
    tokens = rows * length
    inputs = model.norms if compute == FULL else 3 + model.gates
    per_token = (
        model.norms * 2 * model.hidden * FULL
        + inputs * model.hidden * compute
        + 4 * model.queries * compute
        + 2 * model.gates * model.feed_forward * compute
    )
    scores = rows * model.heads * length**2 * 2 * compute if model.scores else 0
    return tokens * per_token + length**2 * compute + scores


def layer_work(model: Sizes, rows: int, length: int, compute: int) -> int:
    """rows × length × (3 × hidden + 3 × feed_forward) × compute: what a layer holds for a moment"""
    return rows * length * 3 * (model.hidden + model.feed_forward) * compute


def head_gradient(model: Sizes) -> int:
    """vocabulary × hidden × 4: the output embedding's, made in the forward pass"""
    return model.embedding * FULL


def chunk_logits(model: Sizes, teacher: Sizes | None, device: str) -> int:
    """4 × chunk × 4, and half as much again for a teacher: logits, softmax, slope and gradient of a
    chunk, whatever the batch; a chunk is one token at least
    """
    chunk = max(CHUNK_LOGITS.get(device, CHUNK_LOGITS["cpu"]), model.vocabulary)
    return (4 if teacher is None else 6) * chunk * FULL


# ------------------------------------------------------------------------ responses
def kept_states(teacher: Sizes, rows: int, slots: int, width: int) -> int:
    """rows × slots × hidden × width: the teacher's final states of a rollout's rows"""
    return rows * slots * teacher.hidden * width


def cache(model: Sizes, rows: int, slots: int, width: int) -> int:
    """2 × layers × keys × rows × slots × width, and one layer's keys and values as attention
    repeats them for its heads: 2 × queries × rows × slots × width
    """
    repeated = 2 * model.queries if model.queries > model.keys else 0
    return (2 * model.layers * model.keys + repeated) * rows * slots * width


def drawing(model: Sizes, rows: int, block: int, interleaved: bool) -> int:
    """rows × vocabulary × 4 × (2 + 2γ), and 2γ more for a teacher's logits: the distributions that
    a block's proposals were drawn from, once each and once together
    """
    return rows * model.vocabulary * FULL * (2 + (4 if interleaved else 2) * block)


def prefill(model: Sizes, rows: int, prompt: int, width: int) -> int:
    """a layer's work for at most 32 prompts"""
    return layer_work(model, min(rows, PREFILL_ROWS), prompt, width)
