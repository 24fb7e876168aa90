"""From raw logits to a distribution, a draw and a rank.

Temperature and top-p shape draws only; ranks and losses read raw logits. Knows neither
models nor which of the two models a row came from.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Nuclei are nearly always found among the most likely tokens; a full sort of a
# 150k vocabulary costs twenty times this prefilter.
_PREFILTER = 256


def distribution(logits: Tensor, temperature: float, top_p: float) -> Tensor:
    """[..., V] raw logits -> [..., V] probabilities; temperature 0 puts all mass on the argmax."""
    if temperature == 0.0:
        best = logits.argmax(-1, keepdim=True)
        return torch.zeros_like(logits).scatter_(-1, best, 1.0)
    probabilities = torch.softmax(widened(logits) / temperature, dim=-1)
    return probabilities if top_p >= 1.0 else _nucleus(probabilities, top_p)


def widened(logits: Tensor) -> Tensor:
    """In fp32 at least: half precision is too coarse to sum probabilities in."""
    # float() would round fp64, which the oracles run in.
    return logits if logits.dtype == torch.float64 else logits.float()


def _nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """Keep the smallest set of most likely tokens with mass >= top_p, renormalised."""
    kept = nucleus_mask(probabilities, top_p)
    cut = probabilities.masked_fill(~kept, 0.0)
    return cut / cut.sum(-1, keepdim=True)


def nucleus_mask(probabilities: Tensor, top_p: float | Tensor) -> Tensor:
    """[..., V] bool, True inside the smallest nucleus of mass >= top_p; rank 1 is always inside.

    Of tokens that are equally likely the smaller ids come first, so that a nucleus is a function
    of its own distribution, whatever the batch around it.

    top_p: one mass, or one for each distribution [..., 1].
    """
    if probabilities.shape[-1] <= _PREFILTER:
        return _sorted_nucleus(probabilities, top_p)
    values, ids = probabilities.topk(_PREFILTER, dim=-1)
    inside = _inside(values, top_p)
    mask = torch.zeros_like(probabilities, dtype=torch.bool).scatter_(-1, ids, inside)
    # It goes beyond the prefilter, or ends among equals, which `topk` gives in any order.
    edge = inside[..., :-1] & ~inside[..., 1:] & (values[..., :-1] == values[..., 1:])
    unsure = inside[..., -1] | edge.any(-1)
    if bool(unsure.any()):
        mass = top_p[unsure] if isinstance(top_p, Tensor) else top_p
        mask[unsure] = _sorted_nucleus(probabilities[unsure], mass)
    return mask


def _sorted_nucleus(probabilities: Tensor, top_p: float | Tensor) -> Tensor:
    """`nucleus_mask` by a full sort."""
    values, ids = probabilities.sort(dim=-1, descending=True, stable=True)
    mask = torch.zeros_like(probabilities, dtype=torch.bool)
    return mask.scatter_(-1, ids, _inside(values, top_p))


def _inside(values: Tensor, top_p: float | Tensor) -> Tensor:
    """[..., n] which of the probabilities, largest first, are inside."""
    inside = values.cumsum(-1) - values < top_p  # mass of the more likely tokens
    inside[..., 0] = True
    return inside


def draw(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Inverse-CDF sample: [N, V] non-negative weights, [N] uniforms in [0, 1) -> [N] ids.

    A token is thus a pure function of its distribution and its own uniform, whatever the
    batch around it; it is also ten times faster than `torch.multinomial`.
    """
    assert probabilities.ndim == 2
    assert uniform.shape == probabilities.shape[:1]
    cdf = probabilities.cumsum(-1)
    point = uniform.to(cdf.dtype)[:, None] * cdf[:, -1:]
    # right=True skips tokens of probability 0, which add nothing to the CDF.
    ids = torch.searchsorted(cdf, point, right=True)
    last = (cdf < cdf[:, -1:]).sum(-1, keepdim=True)  # rounding may carry a point to the total
    return torch.minimum(ids, last).squeeze(-1)


def rank(logits: Tensor, ids: Tensor) -> Tensor:
    """[N, V], [N] -> [N] how many tokens come before it, by logit (0: the most likely).

    Of equal logits, of which bf16 has many, the smaller ids come first: K tokens have a rank < K.
    """
    assert logits.ndim == 2
    assert ids.shape == logits.shape[:1]
    own = logits.gather(-1, ids[:, None])
    earlier = torch.arange(logits.shape[-1], device=logits.device) < ids[:, None]
    return ((logits > own) | (logits == own) & earlier).sum(-1)
