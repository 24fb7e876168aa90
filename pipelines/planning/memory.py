"""The arithmetic of memory: what each part takes at once, in bytes, one function per part.

Students are trained in fp32 unless the settings say otherwise. On an accelerator their products are
computed in bf16 from copies made on the way, and a teacher is in bf16 unless it is held in less.
Knows sizes and lengths; refuses to know experiments and what a device has.
"""

from __future__ import annotations

from pipelines.planning.sizes import Sizes
from skd.engine.cache import PREFILL_ROWS
from skd.models.placement import OFFLOAD
from skd.models.quantised import BLOCK
from skd.settings import Weights
from skd.training.adamw_8bit import BLOCK as MOMENTS_BLOCK
from skd.training.chunks import CHUNK_LOGITS
from skd.training.settings import Optimisation

# Bytes of a number in fp32, in which weights, gradients, moments and norms are
FULL = 4


def compute_width(device: str) -> int:
    """Bytes of what a student's products read and give: fp32 on a CPU, bf16 elsewhere"""
    return FULL if device == "cpu" else 2


def taught_in(teacher: Sizes, device: str) -> Weights:
    """In what a teacher is held while a student learns from it"""
    return teacher.weights or ("float32" if device == "cpu" else "bfloat16")


def products_code(device: str, *held: Weights) -> int:
    """What oneDNN makes for the shapes of bf16 products on a CPU and keeps: 200 MiB of the last 64
    shapes, which is what a stage asks for (`pipelines.stages.command`); measured, docs/profiles.md
    """
    return 200 * 2**20 if device == "cpu" and "bfloat16" in held else 0


# --------------------------------------------------------------------- models
def weights(model: Sizes, width: int = FULL) -> int:
    """parameters × width"""
    return model.parameters * width


def held(model: Sizes, weights: Weights) -> int:
    """parameters × 4 or × 2. Of linear layers × 1 in int8 and × (½ + 4 / 64) in nf4, what is left
    × 2; for a moment one linear layer's weight is made of its codes: hidden × feed_forward × 2
    """
    if weights in ("float32", "bfloat16"):
        return model.parameters * width(weights)
    bits = 8 if weights == "int8" else 4 + 8 * FULL / BLOCK
    rest = (model.parameters - model.in_linear) * width(weights)
    made = model.hidden * model.feed_forward * width(weights)
    return round(model.in_linear * bits / 8) + rest + made


def width(weights: Weights) -> int:
    """4 in fp32, else 2: bytes of what is not in few bits, of states and of caches"""
    return FULL if weights == "float32" else 2


def here(model: Sizes, weights: Weights) -> int:
    """What of a model stands on the device: all of it, or with its layers elsewhere its embeddings;
    with `offload` one layer besides
    """
    whole = held(model, weights)
    if model.layers_at is None:
        return whole
    layers = whole - (model.parameters - model.in_layers) * width(weights)
    return whole - layers + (layers // model.layers if model.layers_at == OFFLOAD else 0)


def trained(model: Sizes, run: Optimisation) -> int:
    """What a student's weights take: as they are held, and an adapter × 4"""
    own = 0 if run.adapter is None else model.trainable(run.adapter) * FULL
    return held(model, run.weights) + own


def gradients(model: Sizes, run: Optimisation) -> int:
    """trainable × 4, or × 2 of weights in bf16; they stay until the next step begins"""
    return model.trainable(run.adapter) * _trained_width(run)


def optimiser(model: Sizes, run: Optimisation) -> int:
    """trainable × 2 × 4: AdamW's two means, from the end of the first step on; in 8 bits × 2 ×
    (1 + 4 / 256). Of weights in bf16 also master copies: trainable × 4
    """
    each = FULL if run.optimiser == "adamw" else 1 + FULL / MOMENTS_BLOCK
    copies = FULL if _trained_width(run) < FULL else 0
    return round(model.trainable(run.adapter) * (2 * each + copies))


def full_gradients(model: Sizes, run: Optimisation) -> int:
    """trainable × 4 while master copies are changed"""
    return model.trainable(run.adapter) * FULL if _trained_width(run) < FULL else 0


def compute_copies(model: Sizes, run: Optimisation, compute: int) -> int:
    """parameters × 2 where products are in bf16 and weights in fp32; kept for the backward pass"""
    count = model.parameters if run.weights == "float32" else 0
    if run.adapter is not None:
        count += model.trainable(run.adapter)
    return 0 if compute == FULL else count * compute


def _trained_width(run: Optimisation) -> int:
    """Bytes of a number that is trained: an adapter's are in fp32 whatever it stands beside."""
    return FULL if run.adapter is not None else width(run.weights)


# ----------------------------------------------------------------- a training step
def activations(
    model: Sizes, rows: int, length: int, compute: int, checkpointing: bool = False
) -> int:
    """layers × layer, or with checkpointing layers × rows × length × hidden × 4 + one layer;
    and the final norm: rows × length × norm × hidden × 4

    length: of an encoder–decoder what its decoder reads; `source_activations` are the rest.
    """
    tokens = rows * length
    layer = layer_activations(model, rows, length, compute)
    last = model.norm * tokens * model.hidden * FULL
    if checkpointing:
        return model.layers * tokens * model.hidden * FULL + layer + last
    return model.layers * layer + last


def source_activations(
    model: Sizes, rows: int, source: int, length: int, compute: int, checkpointing: bool = False
) -> int:
    """An encoder–decoder's, with its encoder's as `activations` of rows × source, and for each
    decoder layer, or with checkpointing for one:

    queries         rows × length × 2 × queries × compute      q and the result
    keys            rows × source × 2 × queries × compute      k and v
    scores          rows × heads × length × source × 2 × compute    of eager attention alone
    """
    if model.encoder is None:
        return 0
    crossed = 2 * rows * (length + source) * model.queries * compute
    if model.scores:
        crossed += rows * model.heads * length * source * 2 * compute
    layers = 1 if checkpointing else model.layers
    return layers * crossed + activations(model.encoder, rows, source, compute, checkpointing)


def layer_activations(model: Sizes, rows: int, length: int, compute: int) -> int:
    """What one layer keeps for its backward pass, with tokens = rows × length:

    norms           tokens × norms × norm × hidden × 4         input, and normalised input
    their results   tokens × inputs × hidden × compute         as many as there are copies of them
    attention       tokens × 4 × queries × compute             q, k, v and their result
    mask            length² × compute
    scores          rows × heads × length² × 2 × compute       of eager attention alone
    feed-forward    tokens × (activation + 1) × feed_forward × compute; 2 more where a gate is
    experts         tokens × experts × 3 × hidden × compute    gathered, computed, weighed

    k and v count as repeated for each head. In fp32 a norm's result is one tensor, whoever reads
    it; in bf16 each of the 3 + gates products makes its own copy.
    """
    tokens = rows * length
    inputs = model.norms if compute == FULL else 3 + model.gates
    per_token = (
        model.norms * model.norm * model.hidden * FULL
        + inputs * model.hidden * compute
        + 4 * model.queries * compute
        + (model.activation + 2 * model.gates - 1) * model.feed_forward * compute
        + 3 * model.experts * model.hidden * compute
    )
    scores = rows * model.heads * length**2 * 2 * compute if model.scores else 0
    return tokens * per_token + length**2 * compute + scores


def layer_work(model: Sizes, rows: int, length: int, compute: int) -> int:
    """rows × length × (3 × hidden + 3 × feed_forward) × compute: what a layer holds for a moment"""
    return rows * length * 3 * (model.hidden + model.feed_forward) * compute


def head_gradient(model: Sizes, run: Optimisation) -> int:
    """vocabulary × hidden × 4 or × 2: the output embedding's, made in the forward pass; an adapter
    leaves it as it is
    """
    return 0 if run.adapter is not None else model.embedding * _trained_width(run)


def chunk_logits(model: Sizes, teacher: Sizes | None, device: str) -> int:
    """4 × chunk × 4, and half as much again for a teacher: logits, softmax, slope and gradient of a
    chunk, whatever the batch; a chunk is one token at least. Across two tokenizers 15 × chunk × 4:
    what autograd keeps of both models' probabilities over tokens and over classes.
    """
    chunk = max(CHUNK_LOGITS.get(device, CHUNK_LOGITS["cpu"]), model.vocabulary)
    if teacher is None:
        return 4 * chunk * FULL
    return (15 if teacher.own_ids else 6) * chunk * FULL


# ------------------------------------------------------------------------ responses
def kept_states(teacher: Sizes, rows: int, slots: int, width: int) -> int:
    """rows × slots × hidden × width: the teacher's final states of a rollout's rows"""
    return rows * slots * teacher.hidden * width


def cache(model: Sizes, rows: int, slots: int, width: int) -> int:
    """2 × layers × keys × rows × slots × width, and one layer's keys and values as attention
    repeats them for its heads: 2 × queries × rows × slots × width

    A decoder keeps a prompt's in the slots that an encoder–decoder keeps its source's in.
    """
    repeated = 2 * model.queries if model.queries > model.keys else 0
    return (2 * model.layers * model.keys + repeated) * rows * slots * width


def drawing(model: Sizes, rows: int, block: int, interleaved: bool) -> int:
    """rows × vocabulary × 4 × (2 + 2γ), and 2γ more for a teacher's logits: the distributions that
    a block's proposals were drawn from, once each and once together
    """
    return rows * model.vocabulary * FULL * (2 + (4 if interleaved else 2) * block)


def prefill(model: Sizes, rows: int, prompt: int, width: int) -> int:
    """a layer's work for at most 32 prompts, which an encoder reads where there is one"""
    return layer_work(model.encoder or model, min(rows, PREFILL_ROWS), prompt, width)
