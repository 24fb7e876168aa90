"""A method's loss from final hidden states: head, softmax, divergence and gradient by chunks.

Logits of whole batches are never made. A chunk's logits live as long as its gradient
takes: the divergences give theirs in closed form (`skd.training.divergences`), the head's is
autograd's, and both are computed in the forward pass, so nothing is kept or recomputed.
Knows states and logits; neither tokens' texts nor the optimiser.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from skd.engine.states import head
from skd.training.divergences import DIVERGENCES, forward_kl, logit_gradient
from skd.training.methods import Method
from skd.training.settings import Divergence

# Logits that are alive at once, per model: 16 MiB in fp32 on a CPU. An accelerator needs more of
# them to be busy.
_CHUNK_LOGITS = {"cpu": 2**22, "cuda": 2**26}
# What goes through softmax, divergence and gradient together: what a CPU's cache holds.
_BLOCK_LOGITS = {"cpu": 2**19, "cuda": 2**26}


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

    def work(rows: slice, logits: Tensor) -> tuple[Tensor, Tensor]:
        other = None if teacher is None else teacher.logits(rows, size)
        marks = None if replaced is None else replaced[rows]
        each = _rows(_BLOCK_LOGITS, logits.device, size)
        parts = [_cut(x, each, len(logits)) for x in (logits, other, targets[rows], marks)]
        made = []
        for ours, *rest in zip(*parts, strict=True):
            loss, kl, slope = token_loss(method, divergence, ours, *rest)
            ours.copy_(slope)
            made.append((loss, kl))
        losses, kls = zip(*made, strict=True)
        return torch.cat(losses), torch.cat(kls)

    embedding = student.model.get_output_embeddings()
    leaves = [student.states, embedding.weight]
    if getattr(embedding, "bias", None) is not None:
        leaves.append(embedding.bias)
    if not torch.is_grad_enabled():  # a Function cannot tell
        leaves = [leaf.detach() for leaf in leaves]
    total, kl = _Chunked.apply(work, student.model, size, *leaves)  # type: ignore[no-untyped-call]
    return total, None if teacher is None else kl


def _rows(logits: dict[str, int], device: torch.device, size: int) -> int:
    return max(1, logits.get(device.type, logits["cpu"]) // size)


def _cut(x: Tensor | None, each: int, rows: int) -> Sequence[Tensor | None]:
    """Views of `each` rows at a time."""
    return [None] * -(-rows // each) if x is None else x.split(each)


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

    Both models' logits are spent: the results stand in their memory.
    """
    student_log = _log_softmax_(student)
    teacher_log = None if teacher is None else _log_softmax_(teacher)
    labels, weights = _labels(method, student, teacher_log, targets, replaced)
    loss = -weights * student_log.gather(-1, labels).squeeze(-1)
    is_kl = bool(method.divergence) and divergence.name == "forward_kl"
    kl, slope = torch.zeros_like(loss), None
    if teacher_log is not None and not is_kl:  # for the log alone
        kl = forward_kl(teacher_log.clone(), student_log, 0.0)[0]
    if method.divergence:
        assert teacher_log is not None
        values, slope = DIVERGENCES[divergence.name](teacher_log, student_log, divergence.beta)
        loss, slope = loss + method.divergence * values, slope.mul_(method.divergence)
        kl = values if is_kl else kl
    slope = torch.zeros_like(student) if slope is None else slope
    if method.cross_entropy:
        slope.scatter_add_(-1, labels, -weights[:, None])
    return loss, kl, logit_gradient(slope, student_log)


def _log_softmax_(logits: Tensor) -> Tensor:
    """Log-probabilities in place: a row is read before it is written over."""
    return torch.log_softmax(logits, -1, out=logits)


def _labels(
    method: Method,
    student: Tensor,
    teacher: Tensor | None,
    targets: Tensor,
    replaced: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """[n, 1] labels of the cross-entropy and [n] their weights."""
    weights = torch.full_like(student[:, 0], method.cross_entropy)
    if method.label == "replaced":
        weights *= 0.0 if replaced is None else replaced
    if method.label == "teacher_argmax":
        assert teacher is not None
        return teacher.argmax(-1, keepdim=True), weights
    return targets[:, None], weights


class _Chunked(torch.autograd.Function):
    """Sums of `work` over chunks of the student's logits, with the gradients made on the way.

    `work` gives a chunk's losses and KLs, and writes the losses' gradient over its logits.
    """

    @staticmethod
    def forward(
        ctx: Any,
        work: Callable[[slice, Tensor], tuple[Tensor, Tensor]],
        model: PreTrainedModel,
        size: int,
        states: Tensor,
        *parameters: Tensor,
    ) -> tuple[Tensor, Tensor]:
        inputs = (states, *parameters)
        gradients = [torch.zeros_like(x) if x.requires_grad else None for x in inputs]
        wanted = any(x.requires_grad for x in inputs)

        def chunk(rows: slice) -> tuple[Tensor, Tensor]:  # its logits go when it returns
            leaf = states[rows].detach().requires_grad_(wanted)
            with torch.set_grad_enabled(wanted), _output(model) as raw:
                logits = Predictions(model, leaf).logits(slice(None), size)
            # Overwritten behind autograd's back: no family's head saves its logits for backward.
            loss, kl = work(rows, slope := logits.data)
            if wanted:  # back through capping, scaling and the cut, then the product by hand
                (slope,) = torch.autograd.grad(logits, raw, slope)
                _add_product(slope[0], leaf.detach(), model, gradients, rows)
            return loss, kl

        step = _rows(_CHUNK_LOGITS, states.device, size)
        sums = [chunk(slice(start, start + step)) for start in range(0, len(states), step)]
        losses, divergences = zip(*sums, strict=True)
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
