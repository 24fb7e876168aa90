"""AdamW whose two moments are kept in 8 bits: 2 bytes a weight instead of 8.

Blocks of 256 numbers share a scale and are written in dynamic codes, dense near zero (8-bit
Optimizers via Block-wise Quantization, arXiv 2110.02861, section 2). Of the second moment the root
is kept: its codes span six powers of ten, and a variance that falls to zero beside a mean that
does not would make a step without bound. Knows nothing of what is trained.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.optim import Optimizer

BLOCK = 256  # numbers that share a scale
_PIECE = 2**24  # numbers that are in fp32 at once


class AdamW8bit(Optimizer):
    """torch.optim.AdamW but for what it remembers: weights and gradients are as they are there."""

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        defaults = {"lr": lr, "weight_decay": weight_decay, "betas": betas, "eps": eps}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step(parameter, group)

    def _step(self, parameter: Tensor, group: dict[str, Any]) -> None:
        assert parameter.grad is not None
        state: dict[str, Tensor] = self.state[parameter]
        first, second = group["betas"]
        if not state:
            state["step"] = torch.zeros(())
            for name in ("mean", "root"):
                zeros = parameter.new_zeros(-(-parameter.numel() // BLOCK), BLOCK)
                state[name], state[f"{name}_scales"] = encode(zeros, name == "mean")
        state["step"] += 1
        steps = state["step"].item()
        rate = group["lr"] / (1 - first**steps)
        weights, gradients = parameter.view(-1), parameter.grad.reshape(-1)
        for start in range(0, len(weights), _PIECE):
            piece = slice(start, start + _PIECE)
            blocks = slice(start // BLOCK, (start + _PIECE) // BLOCK)
            gradient = gradients[piece]
            whole = pad(gradient, (0, -len(gradient) % BLOCK)).view(-1, BLOCK)
            mean = decode(state["mean"][blocks], state["mean_scales"][blocks], signed=True)
            root = decode(state["root"][blocks], state["root_scales"][blocks], signed=False)
            mean.lerp_(whole, 1 - first)
            square = root.square_().mul_(second).addcmul_(whole, whole, value=1 - second)
            root = square.sqrt_()
            spread = (root / (1 - second**steps) ** 0.5).add_(group["eps"])
            change = (mean / spread).view(-1)[: len(gradient)]
            weights[piece].mul_(1 - group["lr"] * group["weight_decay"])
            weights[piece].sub_(change, alpha=rate)
            for name, moment in (("mean", mean), ("root", root)):
                codes, scales = encode(moment, name == "mean")
                state[name][blocks], state[f"{name}_scales"][blocks] = codes, scales


def encode(blocks: Tensor, signed: bool) -> tuple[Tensor, Tensor]:
    """[n, 256] numbers -> their nearest codes [n, 256] and scales [n]."""
    scales = blocks.abs().amax(-1)
    levels = _levels(blocks.device, signed)
    shares = blocks / scales.clamp_min(torch.finfo(torch.float32).tiny)[:, None]
    between = (levels[1:] + levels[:-1]) / 2
    return torch.bucketize(shares.float(), between, out_int32=True).to(torch.uint8), scales.float()


def decode(codes: Tensor, scales: Tensor, signed: bool) -> Tensor:
    """The inverse: [n, 256] numbers in fp32."""
    return _levels(codes.device, signed)[codes.int()] * scales[:, None]


@cache
def _levels(device: torch.device, signed: bool) -> Tensor:
    """[256] what the codes stand for, from -1 or 0 to 1.

    The power of ten takes as many leading bits as it is low, the fraction what is left.
    """
    powers = []
    for power in range(7):
        count = 2 ** (power if signed else power + 1)
        edges = torch.linspace(0.1, 1.0, count + 1, dtype=torch.float64)
        powers.append((edges[1:] + edges[:-1]) / 2 * 10.0 ** (power - 6))
    positive = torch.cat(powers)
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    levels = torch.cat([-positive, positive, ends] if signed else [positive, ends])
    return levels.sort().values.float().to(device)
