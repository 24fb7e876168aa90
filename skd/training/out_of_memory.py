"""What a training step does when memory runs out: it is made again, with half the rows at once.

The loss of a step is a sum over rows, however they are cut, so nothing changes but the rounding of
that sum, and the masks of dropout where there is any. Refuses to know what a step does.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

from skd.errors import UserError, out_of_memory

T = TypeVar("T")


@dataclass
class RowsAtOnce:
    """How many rows of a batch go through the student at once, for the rest of a run."""

    # None: memory has not run out yet
    most: int | None = None

    def fitting(self, make: Callable[[int], T], rows: int, name: str) -> T:
        """`make(rows)`; where memory runs out once more, then with half of them, and so on.

        make: begins anew each time it is called.
        rows: as many as are asked for.
        name: of the run, for messages.

        Raises:
            UserError: there is no room for a single row.
        """
        rows, again = min(rows, self.most or rows), False
        while True:
            try:
                return make(rows)
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                said = str(error).split("\n")[0]
            # Here, since what was raised holds the step's tensors
            _release()
            if again:
                rows = self.most = self._half(rows, name, said)
                print(
                    f"{name}: out of memory ({said}); {rows} rows at once from here on. The loss "
                    "is the same up to rounding; distill.optimisation.micro_batch_size sets it "
                    "beforehand",
                    file=sys.stderr,
                )
            again = True  # what took the memory may be gone the second time

    @staticmethod
    def _half(rows: int, name: str, said: str) -> int:
        if rows == 1:
            raise UserError(
                f"{name}: out of memory with one row at once ({said}), which micro_batch_size: 1 "
                "would not change; set `gradient_checkpointing: true` or an `adapter` under "
                "distill.optimisation (sft.teacher, sft.student), or smaller max_new_tokens under "
                "budget; docs/memory.md"
            )
        return -(-rows // 2)


def _release() -> None:
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
