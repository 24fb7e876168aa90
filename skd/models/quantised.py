"""Weights in 8 or 4 bits: linear layers that keep codes and make the weight where it is read.

`int8` has a scale per output row. `nf4` is QLoRA's NormalFloat (arXiv 2305.14314, section 3) in
blocks of 64, in the layout of `bitsandbytes`, whose kernel is taken on CUDA where it is installed.
Nothing else is, and every device can run it. Such weights are never trained; gradients go through
them. Knows no files and no settings.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad
from transformers import PreTrainedModel

from skd.errors import UserError

BLOCK = 64  # numbers of nf4 that share a scale
# Quantiles of the normal distribution with zero among them (QLoRA, appendix E)
_NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)


@dataclass(frozen=True)
class Format:
    """A way to write a weight in few bits.

    encode  weight [out, in] -> codes and scales
    decode  codes, scales, the weight's shape and dtype -> the weight
    """

    encode: Callable[[Tensor], tuple[Tensor, Tensor]]
    decode: Callable[[Tensor, Tensor, torch.Size, torch.dtype], Tensor]


def _to_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Codes [out, in] of -127 to 127 and scales [out, 1]."""
    exact = weight.float()
    scales = exact.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny) / 127
    return (exact / scales).round().to(torch.int8), scales


def _from_int8(codes: Tensor, scales: Tensor, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    return (codes * scales).view(shape).to(dtype)


def _to_nf4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Codes [n/2, 1], the first of two in the upper half of a byte, and scales [n/64]."""
    flat = weight.float().flatten()
    blocks = pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)
    scales = blocks.abs().amax(-1)
    levels = _levels(weight.device)
    between = (levels[1:] + levels[:-1]) / 2
    whole = scales.clamp_min(torch.finfo(torch.float32).tiny)[:, None]
    codes = torch.bucketize(blocks / whole, between).to(torch.uint8).view(-1, 2)
    # As int8, which T5 asks a weight for before it changes its states' dtype to the weight's
    return (codes[:, :1] << 4 | codes[:, 1:]).view(torch.int8), scales


def _from_nf4(codes: Tensor, scales: Tensor, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    if codes.is_cuda and importlib.util.find_spec("bitsandbytes"):
        return by_bitsandbytes(codes, scales, shape, dtype)
    pairs = _pairs(codes.device)[codes.view(torch.uint8)[:, 0].int()]  # [n/2, 2]
    weight = (pairs.view(-1, BLOCK) * scales[:, None]).to(dtype)
    return weight.flatten()[: shape.numel()].view(shape)


def by_bitsandbytes(codes: Tensor, scales: Tensor, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """The weight by one kernel instead of three."""
    from bitsandbytes import functional

    state = functional.QuantState(
        absmax=scales,
        shape=shape,
        code=_levels(codes.device),
        blocksize=BLOCK,
        quant_type="nf4",
        dtype=dtype,
    )
    weight: Tensor = functional.dequantize_4bit(codes.view(torch.uint8), state)
    return weight


@cache
def _levels(device: torch.device) -> Tensor:
    return torch.tensor(_NF4, device=device)


@cache
def _pairs(device: torch.device) -> Tensor:
    """[256, 2] the two levels that a byte stands for."""
    levels = _levels(device)
    byte = torch.arange(256, device=device)
    return torch.stack([levels[byte >> 4], levels[byte & 15]], -1)


FORMATS = {"int8": Format(_to_int8, _from_int8), "nf4": Format(_to_nf4, _from_nf4)}


class QuantisedLinear(nn.Linear):
    """A linear layer whose `weight` holds codes. Its input is read in the dtype that it had."""

    def __init__(self, layer: nn.Linear, name: str) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.format, self.dtype = FORMATS[name], layer.weight.dtype
        codes, scales = self.format.encode(layer.weight.detach())
        self.weight = nn.Parameter(codes, requires_grad=False)
        self.register_buffer("scales", scales)
        bias = None if layer.bias is None else nn.Parameter(layer.bias.detach(), False)
        self.register_parameter("bias", bias)

    def full_weight(self) -> Tensor:
        """[out, in] what the codes stand for."""
        shape = torch.Size((self.out_features, self.in_features))
        scales = self.get_buffer("scales")
        return self.format.decode(self.weight.detach(), scales, shape, self.dtype)

    def forward(self, input: Tensor) -> Tensor:
        product: Tensor = _Product.apply(input.to(self.dtype), self)  # type: ignore[no-untyped-call]
        return product if self.bias is None else product + self.bias


class _Product(torch.autograd.Function):
    """input @ weight.T; the backward pass makes the weight again instead of keeping it."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, layer: QuantisedLinear) -> Tensor:
        ctx.layer = layer
        return linear(input, layer.full_weight())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient @ ctx.layer.full_weight().to(gradient.dtype), None


def quantise_(model: PreTrainedModel, name: str, device: torch.device | str) -> None:
    """Put every linear layer but the output embedding into a format, in place, frozen.

    Each is encoded on `device`, where it stays, so that the device never holds the whole weights.

    Raises `UserError` for a model without linear layers: GPT-2's are of another kind.
    """
    head = model.get_output_embeddings()
    layers = {
        path: part
        for path, part in model.named_modules()
        if isinstance(part, nn.Linear) and part is not head
    }
    if not layers:
        raise UserError(
            f"{type(model).__name__} has no linear layers to hold in {name}; take bfloat16"
        )
    for path, layer in layers.items():
        model.set_submodule(path, QuantisedLinear(layer.to(device), name))


def dequantise_(model: nn.Module) -> None:
    """Plain linear layers of the weights that the codes stand for, in place."""
    for path, part in list(model.named_modules()):
        if isinstance(part, QuantisedLinear):
            weight = part.full_weight()
            plain = nn.Linear(part.in_features, part.out_features, device="meta")
            plain.weight = nn.Parameter(weight, requires_grad=False)
            plain.bias = part.bias
            if part.bias is None:
                plain.register_parameter("bias", None)
            model.set_submodule(path, plain)
