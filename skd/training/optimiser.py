"""What a run trains of its student, and the optimiser that does it.

Weights in half precision are too coarse to add a small change to: of these the optimiser has copies
in fp32, changes them and rounds the result. Knows a model's parameters and no more of it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from skd.training.adamw_8bit import AdamW8bit
from skd.training.settings import Optimisation

OPTIMISERS: dict[str, Callable[..., Optimizer]] = {
    # Fused: a third of the time of one operation per tensor
    "adamw": partial(torch.optim.AdamW, fused=True),
    "adamw_8bit": AdamW8bit,
}


class Trained:
    """The trainable parameters of a model with their optimiser.

    held  as the model reads them, by name
    full  what the optimiser changes, by name: the same tensors, or fp32 copies of half precision
    """

    def __init__(self, model: nn.Module, settings: Optimisation) -> None:
        self.held = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.full = {name: _full(parameter) for name, parameter in self.held.items()}
        self.optimizer = OPTIMISERS[settings.optimiser](
            list(self.full.values()), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )

    def step(self, rate: float) -> None:
        """Change the weights by their gradients, which are spent."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        copies = [(held, self.full[name]) for name, held in self.held.items()]
        copies = [(held, full) for held, full in copies if full is not held]
        for held, full in copies:
            full.grad = None if held.grad is None else held.grad.float()
            held.grad = None
        self.optimizer.step()
        for held, full in copies:
            full.grad = None
            held.data.copy_(full)

    def zero_grad(self) -> None:
        for parameter in self.held.values():
            parameter.grad = None

    def restore(self, weights: dict[str, Tensor]) -> None:
        """Take these values of `full`, by name."""
        with torch.no_grad():
            for name, held in self.held.items():
                self.full[name].copy_(weights[name])
                held.copy_(self.full[name])


def _full(parameter: nn.Parameter) -> Tensor:
    if parameter.dtype in (torch.bfloat16, torch.float16):
        return parameter.detach().float()
    return parameter
