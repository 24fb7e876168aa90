"""The processes that train one run together: whose rows are whose, and what they tell each other.

Each samples and learns from its own rows of every batch; sums of counts, losses and gradients
are those of the whole batch, in the same bits on all. So all hold the same weights and take the
same decisions, and the first alone writes files. A process alone talks to nobody. Knows numbers and
rows of ids. Refuses to know models, and how processes are started.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import psutil
import torch
import torch.distributed as dist
from torch import Tensor

# Numbers that are summed at once: few calls, and little memory beside the gradients
_BUCKET = 2**24
# The first may make the teacher's states while the others wait. Whoever started the processes ends
# them when one of them dies.
_PATIENCE = timedelta(days=7)
# Where each of the libraries reads which network it may use
_NETWORKS = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Group:
    """A process among those of its run."""

    rank: int = 0
    size: int = 1

    @property
    def alone(self) -> bool:
        return self.size == 1

    @property
    def first(self) -> bool:
        """Whether it writes what the run leaves."""
        return self.rank == 0

    @property
    def name(self) -> tuple[int, ...]:
        """What it adds to the keys of random numbers that are its own; the first adds nothing."""
        return () if self.first else (self.rank,)

    def share(self, count: int) -> range:
        """Its places of `count`. Each place is one process's; the shares are as even as can be."""
        return range(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def totals(self, values: Sequence[float]) -> list[float]:
        """The sum of each value over the processes, in fp64."""
        if self.alone:
            return list(values)
        summed = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(summed)
        numbers: list[float] = summed.tolist()
        return numbers

    def rows(self, own: Sequence[Sequence[int]], count: int) -> list[list[int]]:
        """All rows of ids in their order, of which these are the process's `share(count)`."""
        if self.alone:
            return [list(row) for row in own]
        lengths = torch.zeros(count, dtype=torch.long)
        share = self.share(count)
        for place, row in zip(share, own, strict=True):
            lengths[place] = len(row)
        dist.all_reduce(lengths)
        ids = torch.zeros(count, int(lengths.max()) if count else 0, dtype=torch.long)
        for place, row in zip(share, own, strict=True):
            ids[place, : len(row)] = torch.tensor(row, dtype=torch.long)
        dist.all_reduce(ids)
        return [row[:length] for row, length in zip(ids.tolist(), lengths.tolist(), strict=True)]

    def sum_(self, tensors: Iterable[Tensor]) -> None:
        """Sum these over the processes, in place, in fp32 at least.

        Every process names tensors of the same shapes in the same order.
        """
        if self.alone:
            return
        for bucket in _buckets(tensors):
            flat = torch.cat([_exact(tensor).reshape(-1) for tensor in bucket])
            dist.all_reduce(flat)
            parts = flat.split([tensor.numel() for tensor in bucket])
            for tensor, part in zip(bucket, parts, strict=True):
                tensor.copy_(part.view_as(tensor))

    def wait(self) -> None:
        """Until all processes are here: what the first has written is there for all."""
        self.totals([0.0])


ALONE = Group()


def _exact(tensor: Tensor) -> Tensor:
    half = tensor.dtype in (torch.bfloat16, torch.float16)
    return tensor.float() if half else tensor


def _buckets(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Lists of tensors that fit together in a bucket; larger ones have one of their own."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        full = sum(other.numel() for other in bucket) + tensor.numel() > _BUCKET
        if bucket and (full or _exact(tensor[:0]).dtype != _exact(bucket[0][:0]).dtype):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


@contextmanager
def joined(rank: int, size: int, meeting: Path) -> Iterator[Group]:
    """Be one of the processes of a run, as long as the body lasts.

    They find each other through a file and talk on loopback alone: what they say is not encrypted.
    Tensors on a CPU go by gloo, those on an accelerator by NCCL.

    Args:
        meeting: a path in a folder that is theirs alone; no file is there yet.
    """
    for name in _NETWORKS:
        os.environ[name] = _loopback()
    backends = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(
        backends, init_method=meeting.as_uri(), rank=rank, world_size=size, timeout=_PATIENCE
    )
    yield Group(rank, size)
    dist.destroy_process_group()


def _loopback() -> str:
    """The name of the loopback network; `lo` on Linux."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(address.address == _LOOPBACK for address in addresses):
            return name
    raise OSError(f"no network has the address {_LOOPBACK}, by which a run's processes would talk")
