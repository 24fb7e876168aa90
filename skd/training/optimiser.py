"""What a run trains of its student, and the optimiser that does it.

Weights in half precision are too coarse to add a small change to: of these the optimiser has copies
in fp32, changes them and rounds the result. Knows a model's parameters and no more of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from skd.engine.shards import is_cut, own, own_part
from skd.training.adamw_8bit import AdamW8bit
from skd.training.group import Group
from skd.training.settings import Optimisation

OPTIMISERS: dict[str, Callable[..., Optimizer]] = {
    # Fused: a third of the time of one operation per tensor
    "adamw": partial(torch.optim.AdamW, fused=True),
    "adamw_8bit": AdamW8bit,
}


class Trained:
    """The trainable parameters of a model with their optimiser.

    held  as the model reads them, by name
    full  what the optimiser changes, by name: the same tensors, or fp32 copies of half precision;
          where processes hold parts of a weight, this process's part
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
        others = [(held, self.full[name]) for name, held in self.held.items()]
        others = [(held, full) for held, full in others if full is not held]
        for held, full in others:
            full.grad = None if held.grad is None else own(held.grad).to(full.dtype)
            held.grad = None
        self.optimizer.step()
        for held, full in others:
            full.grad = None
            if full.dtype != held.dtype:
                own(held).copy_(full)

    def sum_gradients(self, group: Group) -> None:
        """Of all processes' rows. A weight that no process used is left without one."""
        used = group.totals([held.grad is not None for held in self.held.values()])
        asked = [held for held, times in zip(self.held.values(), used, strict=True) if times]
        for held in asked:
            if held.grad is None:
                held.grad = torch.zeros_like(held)
        # Those of weights in parts are summed as the backward pass comes to them.
        group.sum_(own(held.grad) for held in asked if not is_cut(held) and held.grad is not None)

    def clip(self, limit: float, group: Group) -> float:
        """Scale the gradients down to this norm, where theirs is larger; gives what it was."""
        parts = [held for held in self.held.values() if is_cut(held)]
        if not parts:
            return float(torch.nn.utils.clip_grad_norm_(self.held.values(), limit))
        kinds = [parts, [held for held in self.held.values() if not is_cut(held)]]
        gradients = [[own(h.grad) for h in kind if h.grad is not None] for kind in kinds]
        in_parts, alike = (float(torch.nn.utils.get_total_norm(kind)) ** 2 for kind in gradients)
        norm = math.sqrt(sum(group.totals([in_parts])) + alike)
        for gradient in [*gradients[0], *gradients[1]]:
            gradient.mul_(min(1.0, limit / (norm + 1e-6)))  # as `clip_grad_norm_` does it
        return norm

    def zero_grad(self) -> None:
        for parameter in self.held.values():
            parameter.grad = None

    def restore(self, weights: dict[str, Tensor]) -> None:
        """Take these values of `full`, by name; each is of the whole weight."""
        with torch.no_grad():
            for name, held in self.held.items():
                self.full[name].copy_(own_part(weights[name], held))
                own(held).copy_(self.full[name])


def _full(parameter: nn.Parameter) -> Tensor:
    if parameter.dtype in (torch.bfloat16, torch.float16):
        return own(parameter).float()
    return own(parameter) if is_cut(parameter) else parameter
