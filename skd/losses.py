"""A method's loss from final hidden states: head, softmax, divergence and gradient by chunks.

Logits of whole batches are never made. A chunk's logits live as long as its gradient
takes: the divergences give theirs in closed form (`skd.divergences`), the head's is
autograd's, and both are computed in the forward pass, so nothing is kept or recomputed.
Knows states and logits; neither tokens' texts nor the optimiser.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from skd.divergences import DIVERGENCES, forward_kl, logit_gradient
from skd.methods import Method
from skd.sections import Divergence
from skd.states import head

# Logits that are alive at once, per model: 32 MiB in fp32. Half of it and twice it are slower.
_CHUNK_LOGITS = 2**23


@dataclass(frozen=True)
class Predictions:
    """A model's final states [N, d] where it predicts the N response tokens of a batch."""

    model: PreTrainedModel
    states: Tensor

    def logits(self, rows: slice, size: int) -> Tensor:
        """[n, size] logits, fp32 unless the model is fp64: a softmax needs it."""
        logits = head(self.model, self.states[rows])[:, :size]
        return logits if logits.dtype == torch.float64 else logits.float()


def method_loss(
    method: Method,
    divergence: Divergence,
    student: Predictions,
    teacher: Predictions | None,
    targets: Tensor,
    replaced: Tensor | None,
    size: int,
) -> tuple[Tensor, Tensor | None]:
    """Σ over response tokens of the method's loss, and of KL(teacher ‖ student) for the log.

    targets: [N]; replaced: [N] bool; size: of the common vocabulary, V. Differentiable in the
    student's states and head. The caller divides by the batch's response tokens, whatever
    micro-batches it was cut into.
    """

    def work(rows: slice, logits: Tensor) -> Chunk:
        other = None if teacher is None else teacher.logits(rows, size)
        marks = None if replaced is None else replaced[rows]
        return token_loss(method, divergence, logits, other, targets[rows], marks)

    embedding = student.model.get_output_embeddings()
    leaves = [student.states, embedding.weight]
    if getattr(embedding, "bias", None) is not None:
        leaves.append(embedding.bias)
    if not torch.is_grad_enabled():  # a Function cannot tell
        leaves = [leaf.detach() for leaf in leaves]
    total, kl = _Chunked.apply(work, student.model, size, *leaves)  # type: ignore[no-untyped-call]
    return total, None if teacher is None else kl


Chunk = tuple[Tensor, Tensor, Tensor]  # loss [n], KL(teacher ‖ student) [n], ∂loss/∂logits [n, V]


def token_loss(
    method: Method,
    divergence: Divergence,
    student: Tensor,
    teacher: Tensor | None,
    targets: Tensor,
    replaced: Tensor | None,
) -> Chunk:
    """The loss of each token and its gradient by the student's logits; logits are raw [n, V].

    The teacher's become log-probabilities in place.
    """
    student_log = student.log_softmax(-1)
    teacher_log = None if teacher is None else teacher.sub_(teacher.logsumexp(-1, keepdim=True))
    loss = kl = torch.zeros_like(targets, dtype=student.dtype)
    slope = None
    if method.divergence:
        assert teacher_log is not None
        values, slope = DIVERGENCES[divergence.name](teacher_log, student_log, divergence.beta)
        loss, slope = loss + method.divergence * values, slope.mul_(method.divergence)
        kl = values if divergence.name == "forward_kl" else kl
    if teacher_log is not None and not (method.divergence and divergence.name == "forward_kl"):
        kl = forward_kl(teacher_log, student_log, 0.0)[0]
    if method.cross_entropy:
        labels, kept = _labels(method, teacher, targets, replaced)
        weights = method.cross_entropy * kept.to(student.dtype)[:, None]
        loss = loss - (weights * student_log.gather(-1, labels[:, None])).squeeze(-1)
        slope = torch.zeros_like(student) if slope is None else slope
        slope.scatter_add_(-1, labels[:, None], -weights)
    assert slope is not None
    return loss, kl, logit_gradient(slope, student_log)


def _labels(
    method: Method, teacher: Tensor | None, targets: Tensor, replaced: Tensor | None
) -> tuple[Tensor, Tensor]:
    """[n] labels of the cross-entropy and [n] which of them count."""
    everywhere = torch.ones_like(targets, dtype=torch.bool)
    if method.label == "teacher_argmax":
        assert teacher is not None
        return teacher.argmax(-1), everywhere
    if method.label == "replaced":
        return targets, torch.zeros_like(everywhere) if replaced is None else replaced
    return targets, everywhere


class _Chunked(torch.autograd.Function):
    """Sums of `work` over chunks of the student's logits, with the gradients made on the way."""

    @staticmethod
    def forward(
        ctx: Any,
        work: Callable[[slice, Tensor], Chunk],
        model: PreTrainedModel,
        size: int,
        states: Tensor,
        *parameters: Tensor,
    ) -> tuple[Tensor, Tensor]:
        inputs = (states, *parameters)
        gradients = [torch.zeros_like(x) if x.requires_grad else None for x in inputs]
        wanted = any(x.requires_grad for x in inputs)
        losses: list[Tensor] = []
        divergences: list[Tensor] = []
        step = max(1, _CHUNK_LOGITS // size)
        for start in range(0, len(states), step):
            rows = slice(start, start + step)
            leaf = states[rows].detach().requires_grad_(wanted)
            with torch.set_grad_enabled(wanted), _output(model) as raw:
                logits = Predictions(model, leaf).logits(slice(None), size)
            loss, kl, slope = work(rows, logits.detach())
            losses.append(loss)
            divergences.append(kl)
            if wanted:  # back through capping, scaling and the cut, then the product by hand
                (slope,) = torch.autograd.grad(logits, raw, slope)
                _add_product(slope[0], leaf.detach(), model, gradients, rows)
        ctx.gradients = gradients
        total, divergence = torch.cat(losses).sum(), torch.cat(divergences).sum()
        ctx.mark_non_differentiable(divergence)
        return total, divergence

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Any, ...]:
        """Once only: the gradients are scaled in place and handed over."""
        made, ctx.gradients = ctx.gradients, None
        return (None, None, None, *(None if g is None else g.mul_(gradient) for g in made))


@contextmanager
def _output(model: PreTrainedModel) -> Iterator[list[Tensor]]:
    """What the output embedding gives meanwhile, before capping and scaling."""
    seen: list[Tensor] = []
    hook = model.get_output_embeddings().register_forward_hook(lambda *call: seen.append(call[2]))
    try:
        yield seen
    finally:
        hook.remove()


def _add_product(
    slope: Tensor,
    states: Tensor,
    model: PreTrainedModel,
    gradients: list[Tensor | None],
    rows: slice,
) -> None:
    """Add the gradients of states @ weight.T (+ bias), without a second copy of the weight's.

    slope: [n, rows of the embedding], in the dtype the product was computed in.
    """
    embedding = model.get_output_embeddings()
    by_states, by_weight, *by_bias = gradients
    if by_states is not None:
        by_states[rows] = (slope @ embedding.weight.to(slope.dtype)).to(by_states.dtype)
    if by_weight is not None and by_weight.dtype == slope.dtype:
        by_weight.addmm_(slope.T, states)
    elif by_weight is not None:
        by_weight += slope.T @ states.to(slope.dtype)
    for bias in by_bias:
        if bias is not None:
            bias += slope.sum(0)
