"""The arithmetic of disk: what an experiment leaves there, in bytes.

A trained model stands in scratch, in its stage's folder and in DVC's cache. Knows sizes and runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipelines.planning import memory
from pipelines.planning.lengths import TaskLengths
from pipelines.planning.work import Models, Training
from skd.models.settings import HubModel, LayersModel, ProceduralModel
from skd.models.settings import Models as Named

# Places of a trained model, and of one that is made or cut without training
_TRAINED, _MADE = 3, 2


def downloads(named: Named, models: Models) -> int:
    """parameters × 2 for each model of the Hub, whose files are in bf16"""
    pairs = ((named.teacher, models.teacher), (named.student, models.student))
    return sum(memory.weights(size, 2) for one, size in pairs if isinstance(one, HubModel))


def models_on_disk(named: Named, models: Models, runs: Sequence[Training]) -> int:
    """parameters × 4 × 3 for each trained model (× 2 × 3 where it is not held in fp32), × 4 × 2 for
    one of `base`
    """
    made = sum(
        memory.weights(size)
        for one, size in ((named.teacher, models.teacher), (named.student, models.student))
        if isinstance(one, ProceduralModel | LayersModel)
    )
    trained = sum(
        run.runs * memory.weights(run.student, memory.width(run.optimisation.weights))
        for run in runs
    )
    return _MADE * made + _TRAINED * trained


def states(runs: Sequence[Training], side_by_side: int) -> int:
    """trainable × (4 + 8 + 2 × 4) for each of the runs that go side by side: weights, moments, and
    the best weights of the present and of the stored state
    """
    largest = sorted(
        (run.student.trainable(run.optimisation.adapter) for run in runs for _ in range(run.runs)),
        reverse=True,
    )
    return sum(count * 5 * memory.FULL for count in largest[:side_by_side])


def kept(models: Models, lengths: Mapping[str, TaskLengths], device: str) -> int:
    """responses × hidden × the teacher's width, of every task's training and validation rows"""
    width = memory.width(memory.taught_in(models.teacher, device))
    splits = [
        rows for task in lengths.values() for rows in (task.seen(None, 0), task.held_out(None))
    ]
    tokens = sum(round(rows.count * rows.mean[1]) for rows in splits)
    return tokens * models.teacher.hidden * width
