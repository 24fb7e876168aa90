"""The plan of an experiment: each stage's runs, tokens, memory and time, and whether it fits.

Puts the arithmetic together; every number in it comes from the modules beside. Refuses to know how
a plan is printed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pipelines.planning import disk
from pipelines.planning.devices import Device
from pipelines.planning.hours import Speed, testing_seconds, training_seconds
from pipelines.planning.lengths import TaskLengths
from pipelines.planning.peaks import Peak, testing_peak, training_peak
from pipelines.planning.work import Models, Testing, Training, testings, trainings
from pipelines.runs.machine import jobs_at_once
from pipelines.schema import Params
from pipelines.settings.runtime import Runtime

# Share of a device's memory above which an estimate that is 20 % too low would not fit
TIGHT = 0.8


@dataclass(frozen=True)
class StagePlan:
    stage: str
    runs: int
    # Prompts that are trained on or decoded, and tokens that go through the trained or tested model
    prompts: int
    tokens: int
    # Of the largest run, and of all that share a device's memory
    peak: Peak
    side_by_side: int
    memory: int
    # None: the device was not timed
    seconds: float | None


@dataclass(frozen=True)
class Plan:
    device: Device
    stages: Sequence[StagePlan]
    # What is written -> bytes
    disk: Mapping[str, int]

    @property
    def over(self) -> int:
        """Bytes that are missing, over all stages; 0: it fits."""
        return sum(max(0, stage.memory - self.device.memory) for stage in self.stages)

    @property
    def fits(self) -> bool:
        return self.over == 0 and sum(self.disk.values()) <= self.device.disk


def make_plan(
    params: Params,
    models: Models,
    lengths: Mapping[str, TaskLengths],
    device: Device,
    speed: Speed | None = None,
) -> Plan:
    """The stages in their order. A stage with nothing to run is left out."""
    teacher = replace(
        models.teacher,
        weights=params.models.teacher_weights,
        layers_at=params.runtime.teacher_device,
        own_ids=params.models.cross_tokenizer is not None,
    )
    models = replace(models, teacher=teacher)
    runs = list(trainings(params, models, lengths))
    names = dict.fromkeys(run.stage for run in runs)
    stages = [
        _training_stage(name, [run for run in runs if run.stage == name], params, device, speed)
        for name in names
    ]
    tests = list(testings(params, models, lengths))
    stages.append(_testing_stage(tests, params, device, speed))
    most = max(stage.side_by_side for stage in stages)
    written = {
        "downloads": disk.downloads(params.models, models),
        "models": disk.models_on_disk(params.models, models, runs),
        "running states": disk.states(runs, most),
        "teacher's states": disk.kept(models, lengths, device.kind),
    }
    return Plan(device, stages, written)


def _training_stage(
    name: str, runs: Sequence[Training], params: Params, device: Device, speed: Speed | None
) -> StagePlan:
    at_once = params.evaluate.batch_size
    peaks = [training_peak(run, device, at_once) for run in runs]
    seconds = None
    if speed is not None:
        seconds = sum(run.runs * training_seconds(run, at_once, speed) for run in runs)
    prompts = [run.runs * run.optimisation.prompts for run in runs]
    lengths = [sum(run.rows.mean) * run.rows_per_step / run.optimisation.batch_size for run in runs]
    return _stage(
        name,
        [run.runs for run in runs],
        peaks,
        sum(prompts),
        sum(map(round, (count * each for count, each in zip(prompts, lengths, strict=True)))),
        seconds,
        params.runtime,
        device,
        extra=1,
        processes=params.runtime.processes,
    )


def _testing_stage(
    tests: Sequence[Testing], params: Params, device: Device, speed: Speed | None
) -> StagePlan:
    at_once = params.evaluate.batch_size
    seconds = None
    if speed is not None:
        seconds = sum(test.runs * testing_seconds(test, at_once, speed) for test in tests)
    prompts = [test.runs * test.prompts for test in tests]
    lengths = [test.prompt + test.max_new_tokens for test in tests]
    return _stage(
        "evaluate",
        [test.runs for test in tests],
        [testing_peak(test, device, at_once) for test in tests],
        sum(prompts),
        sum(count * each for count, each in zip(prompts, lengths, strict=True)),
        seconds,
        params.runtime,
        device,
    )


def _stage(
    name: str,
    runs: Sequence[int],
    peaks: Sequence[Peak],
    prompts: int,
    tokens: int,
    seconds: float | None,
    runtime: Runtime,
    device: Device,
    extra: int = 0,
    processes: int = 1,
) -> StagePlan:
    """The largest runs may go side by side; the time is shared by what they keep busy.

    Each of the processes of a run is taken to need what one alone would.
    """
    at_once = jobs_at_once(device.kind, runtime, device.cores, device.count, extra, processes)
    on_cores = device.kind == "cpu"
    each = [peak for count, peak in zip(runs, peaks, strict=True) for _ in range(count)]
    each.sort(key=lambda peak: peak.bytes, reverse=True)
    together = min(at_once, len(each))
    busy = min(together * processes, device.cores if on_cores else device.count)
    sharing = together if on_cores else min(together, runtime.per_device)
    memory = sum(peak.bytes for peak in each[:sharing]) * (processes if on_cores else 1)
    shared = None if seconds is None else seconds / busy
    return StagePlan(name, len(each), prompts, tokens, each[0], together, memory, shared)
