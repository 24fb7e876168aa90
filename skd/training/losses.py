"""The loss of a batch's response tokens, from final hidden states, a chunk of logits at a time.

The logits of a whole batch are never made. A chunk of tokens goes through the student's head, the
divergence and back to its gradient in one go, in the forward pass: the divergences give their
gradient in closed form (`skd.training.divergences`), so nothing is kept for a backward pass and
nothing is computed twice. Knows states, logits and the columns of a method that concern the loss.
Refuses to know how responses are made, batches, text and the optimiser.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from skd.engine.states import head
from skd.training.divergences import DIVERGENCES, Valued, forward_kl, logit_gradient
from skd.training.methods import Loss, Tokens
from skd.training.settings import Divergence

# A chunk's tokens and the student's logits [n, V] there -> losses and KLs. The gradient of the
# losses' sum is written over the logits.
Compared = Callable[[slice, Tensor], tuple[Tensor, Tensor]]

# How many logits of a model are alive at once, by device. On a CPU this is 16 MiB in fp32. An
# accelerator needs more of them to be busy.
CHUNK_LOGITS = {"cpu": 2**22, "cuda": 2**26}
# How many logits go through softmax, divergence and gradient together: what a CPU's cache holds.
_BLOCK_LOGITS = {"cpu": 2**19, "cuda": 2**26}


@dataclass(frozen=True)
class Predictions:
    """A model's final hidden states where it predicts the N response tokens of a batch."""

    model: PreTrainedModel
    states: Tensor  # [N, d]

    def logits(self, tokens: slice, size: int) -> Tensor:
        """[n, size] logits of some of the tokens, in fp32 unless the model is in fp64.

        A softmax needs that precision whatever the dtype of the weights.
        """
        logits = head(self.model, self.states[tokens])[:, :size]
        return logits if logits.dtype == torch.float64 else logits.float()


@dataclass(frozen=True)
class Terms:
    """What is asked of the student at the N response tokens of a batch."""

    loss: Loss
    divergence: Divergence  # where the loss does not fix its own
    targets: Tensor  # [N] the tokens that stand there
    replaced: Tensor | None = None  # [N] True at tokens that the teacher put in; None: nowhere

    def left_out(self, on: Tokens) -> Tensor | None:
        """[N] True at tokens that a part of the loss is not on; None: it is on all."""
        if on == "all":
            return None
        replaced = self.replaced
        if replaced is None:
            replaced = torch.zeros_like(self.targets, dtype=torch.bool)
        return replaced if on == "kept" else ~replaced

    def part(self, tokens: slice) -> Terms:
        """The terms of some of the tokens."""
        replaced = None if self.replaced is None else self.replaced[tokens]
        return Terms(self.loss, self.divergence, self.targets[tokens], replaced)


def response_loss(
    terms: Terms, student: Predictions, teacher: Predictions | None, size: int
) -> tuple[Tensor, Tensor | None]:
    """The sum over the response tokens of the loss, and of KL(teacher ‖ student) for the log.

    The first is differentiable in the student's states and head. The caller divides by the number
    of the batch's response tokens, whatever micro-batches the batch was cut into. Without a teacher
    there is no KL.

    Args:
        size: V, the number of tokens that both models share.
    """
    if len(student.states) != len(terms.targets):
        raise ValueError(
            f"{len(student.states)} states predict {len(terms.targets)} targets; expected as many"
        )
    step = tokens_at_once(student.states.device, size)
    chunks = [slice(start, start + step) for start in range(0, len(student.states), step)]
    compared = partial(_losses_and_gradient_, terms, teacher, size)
    total, kl = chunked_loss(compared, chunks, student, size)
    return total, None if teacher is None else kl


def chunked_loss(
    compared: Compared, chunks: Sequence[slice], student: Predictions, size: int
) -> tuple[Tensor, Tensor]:
    """The sums of what `compared` gives for each chunk of the student's tokens.

    The first is differentiable in the student's states and head, the second is not.
    """
    inputs = [student.states, *student.model.get_output_embeddings().parameters()]
    if not torch.is_grad_enabled():  # an autograd function cannot tell
        inputs = [x.detach() for x in inputs]
    total, kl = _ChunkedLoss.apply(compared, chunks, student.model, size, *inputs)  # type: ignore[no-untyped-call]
    return total, kl


# ------------------------------------------------------------ the loss of single tokens
def token_loss(
    terms: Terms, student_logits: Tensor, teacher_logits: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss [n], KL(teacher ‖ student) [n] and ∂loss/∂logits [n, V] of n tokens.

    Both models' logits [n, V] are raw, and both are spent: results are written over them, since at
    a real vocabulary each further [n, V] costs memory and time.
    """
    loss = terms.loss
    student_log = _log_softmax_(student_logits)
    teacher_log = None if teacher_logits is None else _log_softmax_(teacher_logits)
    labels, weights = _labels(terms, student_log, teacher_log)
    values = -weights * student_log.gather(-1, labels).squeeze(-1)
    values.masked_fill_(weights == 0.0, 0.0)  # not asked for, though the student may exclude it
    name = loss.fixed or terms.divergence.name
    loss_is_kl = bool(loss.divergence) and name == "forward_kl" and terms.divergence.plain
    kl, slope = torch.zeros_like(values), None
    if teacher_log is not None and not loss_is_kl:  # for the log alone
        kl = forward_kl(teacher_log.clone(), student_log, 0.0)[0]
    if loss.divergence:
        assert teacher_log is not None
        divergences, slope = compare(name, terms.divergence, teacher_log, student_log)
        kl = divergences if loss_is_kl else kl
        divergences, slope = loss.divergence * divergences, slope.mul_(loss.divergence)
        if (left_out := terms.left_out(loss.divergence_on)) is not None:
            divergences.masked_fill_(left_out, 0.0)
            slope.masked_fill_(left_out[:, None], 0.0)
        values = values + divergences
    slope = torch.zeros_like(student_log) if slope is None else slope
    if loss.cross_entropy:
        slope.scatter_add_(-1, labels, -weights[:, None])
    return values, kl, logit_gradient(slope, student_log)


def compare(name: str, settings: Divergence, teacher_log: Tensor, student_log: Tensor) -> Valued:
    """A divergence's values [n] and slope [n, V], between the target and the student.

    Both log-probabilities are [n, V]; the teacher's are spent.
    Both are taken at their temperatures. The values are multiplied by the square of the student's,
    since gradients by its logits fall with that square (Hinton et al., arXiv 1503.02531, section
    2): the learning rate and the weight beside a cross-entropy keep their meaning. The target is a
    constant to the gradient.
    """
    divergence = DIVERGENCES[name]
    if settings.plain:
        return divergence(teacher_log, student_log, settings.beta)
    heat = settings.temperature
    student = _log_softmax_(student_log / heat)
    target = teacher_log.div_(settings.target_temperature)
    if settings.veto:
        target.add_(student, alpha=settings.veto)
    values, slope = divergence(_log_softmax_(target), student, settings.beta)
    # A gradient by the logits sums to 0, so it stands for a slope of the raw distribution.
    return heat**2 * values, logit_gradient(slope, student).mul_(heat)


def _log_softmax_(logits: Tensor) -> Tensor:
    """Log-probabilities in the logits' own memory: a row is read before it is written over."""
    return torch.log_softmax(logits, -1, out=logits)


def _labels(terms: Terms, student_log: Tensor, teacher_log: Tensor | None) -> tuple[Tensor, Tensor]:
    """The labels [n, 1] of the cross-entropy and their weights [n]."""
    weights = torch.full_like(student_log[:, 0], terms.loss.cross_entropy)
    if (left_out := terms.left_out(terms.loss.cross_entropy_on)) is not None:
        weights.masked_fill_(left_out, 0.0)
    if terms.loss.label == "teacher_argmax":
        assert teacher_log is not None
        return teacher_log.argmax(-1, keepdim=True), weights
    return terms.targets[:, None], weights


# --------------------------------------------------------------------- chunk by chunk
class _ChunkedLoss(torch.autograd.Function):
    """The sums of loss and KL over chunks of tokens, with the gradients made on the way.

    Each chunk takes five steps: logits, losses with their gradient by the logits, that gradient
    taken back through the head's own capping and scaling, the product with the output embedding,
    and the chunk's sums. One chunk's logits are freed before the next one's are made.
    """

    @staticmethod
    def forward(
        ctx: Any,
        compared: Compared,
        chunks: Sequence[slice],
        model: PreTrainedModel,
        size: int,
        states: Tensor,
        *parameters: Tensor,
    ) -> tuple[Tensor, Tensor]:
        inputs = (states, *parameters)
        gradients = [torch.zeros_like(x) if x.requires_grad else None for x in inputs]
        wanted = any(x.requires_grad for x in inputs)
        embedding = model.get_output_embeddings()

        def chunk(tokens: slice) -> tuple[Tensor, Tensor]:
            chunk_states = states[tokens].detach().requires_grad_(wanted)
            read, products, logits = _student_logits(model, chunk_states, size)
            # Autograd does not see that the logits' memory is written over: no family's head saves
            # its logits for the backward pass.
            losses, kls = compared(tokens, logits.data)
            if wanted:
                by_products = _through_the_head(logits, products)
                if type(embedding) is torch.nn.Linear:
                    _add_product(by_products, chunk_states, read, embedding, gradients, tokens)
                else:
                    own = (chunk_states, *embedding.parameters())
                    _add_by_autograd(by_products, products, own, gradients, tokens)
            return losses, kls

        losses, kls = zip(*map(chunk, chunks), strict=True)
        ctx.gradients = gradients
        total, kl = torch.cat(losses).sum(), torch.cat(kls).sum()
        ctx.mark_non_differentiable(kl)
        return total, kl

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Any, ...]:
        """Hand over the gradients, scaled in place. This works once."""
        if ctx.gradients is None:
            raise RuntimeError(
                "a second backward pass through one loss: its gradients were made with it and are "
                "spent by the first; make the loss again, or sum the losses before one backward"
            )
        gradients, ctx.gradients = ctx.gradients, None
        scaled = (None if g is None else g.mul_(gradient) for g in gradients)
        return (None, None, None, None, *scaled)


def _student_logits(
    model: PreTrainedModel, states: Tensor, size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """What the output embedding reads [1, n, d], what it gives [1, n, rows of it], and the logits
    [n, size] made of that.

    Families differ in what they do before and behind it: T5 scales its states, Gemma 2 caps and
    Granite divides its products.
    """
    with torch.set_grad_enabled(states.requires_grad), _embedding_call(model) as seen:
        logits = Predictions(model, states).logits(slice(None), size)
    ((read, products),) = seen
    return read, products, logits


@contextmanager
def _embedding_call(model: PreTrainedModel) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Collects what the output embedding reads and gives meanwhile."""
    seen: list[tuple[Tensor, Tensor]] = []
    hook = model.get_output_embeddings().register_forward_hook(
        lambda _, given, made: seen.append((given[0], made))
    )
    try:
        yield seen
    finally:
        hook.remove()


def _losses_and_gradient_(
    terms: Terms, teacher: Predictions | None, size: int, tokens: slice, logits: Tensor
) -> tuple[Tensor, Tensor]:
    """A chunk's losses [n] and KLs [n]; the losses' gradient is written over the logits [n, V]."""
    terms = terms.part(tokens)
    teacher_logits = None if teacher is None else teacher.logits(tokens, size)
    step = _logits_at_once(_BLOCK_LOGITS, logits.device, size)
    losses, kls = [], []
    for start in range(0, len(logits), step):
        block = slice(start, start + step)
        student_block = logits[block]
        teacher_block = None if teacher_logits is None else teacher_logits[block]
        loss, kl, gradient = token_loss(terms.part(block), student_block, teacher_block)
        student_block.copy_(gradient)
        losses.append(loss)
        kls.append(kl)
    return torch.cat(losses), torch.cat(kls)


def _through_the_head(logits: Tensor, products: Tensor) -> Tensor:
    """∂loss/∂products [n, rows of the embedding]; the logits' memory holds ∂loss/∂logits by now.

    The way back leads through the cut to the common vocabulary and the family's own capping and
    scaling, as autograd recorded them.
    """
    (by_products,) = torch.autograd.grad(logits, products, logits.data)
    return by_products[0]  # the head sees the tokens as one row


def _add_product(
    by_products: Tensor,
    states: Tensor,
    read: Tensor,
    embedding: torch.nn.Linear,
    gradients: Sequence[Tensor | None],
    tokens: slice,
) -> None:
    """Add the gradients of products = read @ weight.T (+ bias), by hand.

    Autograd would make a second copy of the weight's gradient for each chunk.

    Args:
        by_products: [n, rows of the embedding] in the dtype that the product was computed in.
        read: [1, n, d] what the output embedding read, a function of the chunk's states [n, d].
        gradients: of the states, the weight and, where there is one, the bias.
    """
    by_states, by_weight, *by_bias = gradients
    if by_states is not None:
        weight = embedding.weight.to(by_products.dtype)
        by_read = (by_products @ weight).to(read.dtype)[None]
        by_states[tokens] = torch.autograd.grad(read, states, by_read)[0]
    if by_weight is not None and by_weight.dtype == by_products.dtype:
        by_weight.addmm_(by_products.T, read[0].detach())
    elif by_weight is not None:
        by_weight += by_products.T @ read[0].detach().to(by_products.dtype)
    for bias in by_bias:
        if bias is not None:
            bias += by_products.sum(0)


def _add_by_autograd(
    by_products: Tensor,
    products: Tensor,
    inputs: Sequence[Tensor],
    gradients: Sequence[Tensor | None],
    tokens: slice,
) -> None:
    """Add the gradients through an output embedding that is more than a product: it has an adapter.

    What is trained of it is small.

    Args:
        inputs: the chunk's states [n, d], then the embedding's parameters.
    """
    asked = [place for place, gradient in enumerate(gradients) if gradient is not None]
    found = torch.autograd.grad(products, [inputs[place] for place in asked], by_products[None])
    for place, own in zip(asked, found, strict=True):
        gradient = gradients[place]
        assert gradient is not None
        (gradient if place else gradient[tokens]).add_(own)


def tokens_at_once(device: torch.device, size: int) -> int:
    """How many tokens' logits over a vocabulary of this size make a chunk."""
    return _logits_at_once(CHUNK_LOGITS, device, size)


def _logits_at_once(logits: dict[str, int], device: torch.device, size: int) -> int:
    return max(1, logits.get(device.type, logits["cpu"]) // size)
