"""A loss over final hidden states with the student's logits made a chunk of tokens at a time.

The logits of a whole batch are never made. A chunk of tokens goes through the student's head, the
loss and back to its gradient in one go, in the forward pass: whoever compares gives the gradient by
the logits in closed form, so nothing is kept for a backward pass and nothing is computed twice.
Knows states and output heads. Refuses to know what the loss is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from skd.engine.states import head

# A chunk's tokens and the student's logits [n, V] there -> losses and KLs. The gradient of the
# losses' sum is written over the logits.
Compared = Callable[[slice, Tensor], tuple[Tensor, Tensor]]

# How many logits of a model are alive at once, by device. On a CPU this is 16 MiB in fp32. An
# accelerator needs more of them to be busy.
CHUNK_LOGITS = {"cpu": 2**22, "cuda": 2**26}


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
    return logits_at_once(CHUNK_LOGITS, device, size)


def logits_at_once(logits: Mapping[str, int], device: torch.device, size: int) -> int:
    """How many tokens have as many logits as a device is given, over a vocabulary of this size."""
    return max(1, logits.get(device.type, logits["cpu"]) // size)
