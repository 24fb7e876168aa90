"""Weights of which each process of a run holds a part, by torch's FSDP2: parts, and the whole.

A sharded parameter is a DTensor whose first dimension is cut into one piece a process. Passes
gather a layer's pieces as they come to it, which all processes do at once; while a model is whole,
each process makes passes of its own. A model that is not sharded is always whole. Refuses to know
which modules are sharded, and optimisers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def sharded_modules(model: nn.Module) -> list[Any]:
    """The modules that FSDP2 holds, which it gives methods of its own."""
    return [part for part in model.modules() if hasattr(part, "set_reshard_after_forward")]


def is_sharded(model: nn.Module) -> bool:
    return bool(sharded_modules(model))


@contextmanager
def whole(model: nn.Module) -> Iterator[None]:
    """All of the model's weights in every process meanwhile, so that a pass waits for nobody.

    All processes enter and leave it together.
    """
    modules = sharded_modules(model)
    for module in modules:
        module.set_reshard_after_forward(False)
        module.unshard()
    yield
    for module in modules:
        module.reshard()
        module.set_reshard_after_forward(True)


def own(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor, in the same memory."""
    tensor = tensor.detach()
    part: Tensor = tensor.to_local() if is_cut(tensor) else tensor  # type: ignore[attr-defined]
    return part


def own_part(full: Tensor, like: Tensor) -> Tensor:
    """Of the full tensor what `own` would be of `like`."""
    if not is_cut(like):
        return full
    mesh = like.device_mesh  # type: ignore[attr-defined]
    parts = full.chunk(mesh.size())
    return parts[mesh.get_local_rank()] if mesh.get_local_rank() < len(parts) else full[:0]


def gathered(part: Tensor, like: Tensor) -> Tensor:
    """The full tensor of which each process has such a part, cut as `like` is; all call it."""
    if not is_cut(like) or part.ndim == 0:
        return part
    from torch.distributed.tensor import DTensor

    tensor = DTensor.from_local(
        part,
        like.device_mesh,  # type: ignore[attr-defined]
        like.placements,  # type: ignore[attr-defined]
        run_check=False,
        shape=like.shape,
        stride=torch.empty(like.shape, device="meta").stride(),
    )
    return tensor.full_tensor()


def is_cut(tensor: Tensor) -> bool:
    """Whether each process holds a part of it."""
    return hasattr(tensor, "to_local")


def whole_state(model: nn.Module) -> dict[str, Tensor] | None:
    """Name -> full tensor of a model's state in the host's memory; None: it is in no parts.

    All processes call it.
    """
    if not is_sharded(model):
        return None
    return {
        name: gathered(own(tensor), tensor).cpu() for name, tensor in model.state_dict().items()
    }
