"""The teacher's final states at known responses, computed once and kept on disk.

Ground truth comes back in every epoch, in every method of a seed and at every validation;
the teacher says the same about it each time. States are d numbers a token where logits would
be V. They are made in memory, which has to hold them once, and read memory-mapped. Knows ids only;
what names a cache and where it lies is the caller's business.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from skd.engine.generation import Done, unseen
from skd.engine.meter import Phase, Stopwatch
from skd.engine.sequences import TokenExample, Vocabulary, collate
from skd.engine.states import batch_states, evaluating, precision, states_width

CacheSetting = Literal["auto", "always", "never"]
LARGEST = 4 * 2**30  # bytes that `auto` writes for one set of examples at most


class KeptStates(Mapping[TokenExample, Tensor]):
    """TokenExample -> [len(response), d]: the states that predict its response.

    seconds, passes, teacher_tokens: what making them took, whoever made them.
    """

    def __init__(self, path: Path, examples: Sequence[TokenExample], rows_at_once: int) -> None:
        with safe_open(path, framework="pt") as file:  # type: ignore[no-untyped-call]
            self.states: Tensor = file.get_tensor("states")
            self.seconds = float(file.metadata()["seconds"])
        self.passes = -(-len(examples) // rows_at_once)
        self.teacher_tokens = sum(len(e.prompt) + len(e.response) for e in examples)
        self._spans: dict[TokenExample, slice] = {}
        start = 0
        for example in examples:
            stop = start + len(example.response)
            self._spans[example] = slice(start, stop)
            start = stop

    def __getitem__(self, example: TokenExample) -> Tensor:
        return self.states[self._spans[example]]

    def __iter__(self) -> Iterator[TokenExample]:
        return iter(self._spans)

    def __len__(self) -> int:
        return len(self._spans)


def pays(
    setting: CacheSetting, uses: float, examples: Sequence[TokenExample], teacher: object
) -> bool:
    """Whether to keep states that are asked for `uses` times in all.

    `auto`: where each is asked for more than once and the file is no larger than `LARGEST`. No
    clock and no disk are read, so that a run repeats.
    """
    if setting != "auto":
        return setting == "always"
    assert isinstance(teacher, PreTrainedModel)
    tokens = sum(len(example.response) for example in examples)
    size = tokens * states_width(teacher) * teacher.dtype.itemsize
    return uses > len(examples) and size <= LARGEST


@torch.no_grad()
def keep(
    path: Path,
    teacher: PreTrainedModel,
    examples: Sequence[TokenExample],
    vocabulary: Vocabulary,
    rows_at_once: int,
    done: Done = unseen,
) -> KeptStates:
    """Read the file at `path`, making it first where it is missing or cut off; it appears whole.

    Not for two processes at once: the caller keeps them apart. `done` is told of rows that have
    their states.
    """
    if not _readable(path):
        watch = Stopwatch(teacher.device)
        states = _make(teacher, examples, vocabulary, rows_at_once, done)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        watch.lap(Phase.TEACHER)
        save_file({"states": states}, partial, metadata={"seconds": f"{watch.total:.3f}"})
        partial.replace(path)
    return KeptStates(path, examples, rows_at_once)


def _readable(path: Path) -> bool:
    """Whether the file is there with all that its head promises."""
    try:
        with safe_open(path, framework="pt") as file:  # type: ignore[no-untyped-call]
            return "states" in file.keys()  # noqa: SIM118 - no mapping
    except FileNotFoundError:
        return False
    except SafetensorError as error:
        print(f"{path} is damaged ({error}): made anew", file=sys.stderr)
        return False


def _make(
    teacher: PreTrainedModel,
    examples: Sequence[TokenExample],
    vocabulary: Vocabulary,
    rows_at_once: int,
    done: Done,
) -> Tensor:
    """[Σ response tokens, d] in the examples' order; like lengths go through together."""
    order = sorted(range(len(examples)), key=lambda i: sum(map(len, vars(examples[i]).values())))
    ends = list(accumulate(len(example.response) for example in examples))
    made = torch.empty(ends[-1], states_width(teacher), dtype=teacher.dtype)
    for start in range(0, len(order), rows_at_once):
        rows = order[start : start + rows_at_once]
        batch = collate([examples[i] for i in rows], vocabulary.pad).to(teacher.device)
        with evaluating(teacher), precision(teacher):
            states = batch_states(teacher, batch)[batch.predictors].to(teacher.dtype).cpu()
        sizes = [len(examples[i].response) for i in rows]
        for i, part in zip(rows, states.split(sizes), strict=True):
            made[ends[i] - len(part) : ends[i]] = part
        done(len(rows))
    return made
