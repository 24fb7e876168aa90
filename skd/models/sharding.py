"""Cuts a student into parts, one a process of its run, by torch's FSDP2 (`fully_shard`).

Each decoder layer is a unit of its own. Embeddings, final norm and head stay whole in every
process: the head runs over chunks of states outside of the model's forward pass
(`skd.training.chunks`), where FSDP2 would not gather it. Knows no settings; what is done with parts
is the matter of `skd.engine.shards`.
"""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from skd.errors import UserError
from skd.models.layers import layers_of


def shard_(model: PreTrainedModel, device: torch.device) -> None:
    """Leave each process its part of the layers, in place; the model comes on the CPU.

    Gradients become sums over the processes, as those of weights in one piece are.

    Raises:
        UserError: the model has an encoder.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, share_comm_ctx

    if model.config.is_encoder_decoder:
        raise UserError(
            f"runtime.shard: fsdp is for decoders; a {type(model).__name__} also has an encoder: "
            "remove it, or train an adapter beside weights in few bits (docs/memory.md)"
        )
    torch.zeros((), device=device)  # in use, or the mesh would take one by the process's number
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    units = [fully_shard(layer, mesh=mesh) for layer in layers_of(model)[1]]
    share_comm_ctx(units)  # or each layer would keep its buffers until a whole pass is done
    for unit in units:
        unit.set_gradient_divide_factor(1.0)
        unit.set_force_sum_reduction_for_comms(True)  # gloo cannot scale while it sums
    model.to(device)
