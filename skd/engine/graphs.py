"""A function of tensors as a CUDA graph: its kernels are launched together, not one by one.

A decoder's pass over one token per row is some thousand kernels of a few microseconds, and
Python takes ten times as long to launch them. Knows neither models nor caches.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor

_log = logging.getLogger(__name__)


class Graph:
    """`function`, captured at the first inputs' shapes; calls give a copy of its result.

    Everything else that it reads, weights and caches, is read where it was at the capture.
    What cannot be captured (a mixture of experts asks the device which experts it needs) is
    called as it is.
    """

    def __init__(self, function: Callable[..., Tensor], *inputs: Tensor) -> None:
        self.inputs = [x.clone() for x in inputs]
        self.graph = torch.cuda.CUDAGraph()
        self.uncaptured: Callable[..., Tensor] | None = None
        try:
            # Another thread may use the device meanwhile, to pin memory for one.
            with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
                self.output = function(*self.inputs)
        except RuntimeError as error:
            reason = str(error.__context__ or error).partition("\n")[0]
            _log.warning("no CUDA graph, kernels are launched one by one: %s", reason)
            self.uncaptured = function
        # A captured function is not kept: through it a graph would hold its owner and live until
        # some later collection, which fails if it falls into another graph's capture.

    def __call__(self, *inputs: Tensor) -> Tensor:
        if self.uncaptured is not None:
            return self.uncaptured(*inputs)
        for mine, given in zip(self.inputs, inputs, strict=True):
            mine.copy_(given)
        self.graph.replay()
        return self.output.clone()
