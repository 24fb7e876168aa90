"""Stage `probe`: do student and teacher agree, and is the student a good draft for its teacher?

Reads validation prompts, the first seed of each method and the students before it. Trains nothing.
Where teacher and student read different ids, neither question can be asked, and it says so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar

from pipelines.closure import code_of
from pipelines.parameters import At
from pipelines.runs import folders
from pipelines.runs.engines import run_jobs
from pipelines.runs.inputs import TaskData, training_data
from pipelines.runs.machine import Machine
from pipelines.runs.scratch import fingerprint, key
from pipelines.settings.probe import Probe
from pipelines.settings.runtime import Runtime
from pipelines.stages.command import run_command, stage_parameters, took, write_metrics
from skd.decoding.agreement import agreement, judged
from skd.decoding.drafting import draft_worth
from skd.engine.rollout import uniform_noise
from skd.engine.sampling import Interleaving, sample
from skd.engine.seeding import generator
from skd.engine.sequences import TokenBatch, collate
from skd.engine.settings import Acceptance
from skd.engine.sources import decoder_start
from skd.models.encoding import encode
from skd.models.folders import held_in
from skd.models.loading import load_model, load_tokenizer
from skd.models.pairs import common_vocabulary, share_ids
from skd.models.settings import Budget
from skd.results.analyses import ModelProbe, ProbeResult
from skd.settings import Name, Names, SomeSeeds
from skd.training.settings import Distill

UNTRAINED = "student_init"


@dataclass(frozen=True)
class Parameters:
    tasks: Annotated[Names, At("experiment.tasks")]
    seeds: Annotated[SomeSeeds, At("experiment.seeds")]
    budget: dict[Name, Budget]
    distill: Distill
    probe: Probe
    runtime: Runtime


@dataclass(frozen=True)
class Probing:
    """The job that probes one student beside its teacher."""

    # Its validation rows are the prompts
    task: TaskData
    student: Path
    teacher: Path
    seed: int
    distill: Distill
    settings: Probe
    # Type of the device that it is probed on
    device: str

    kind: ClassVar = ModelProbe

    @property
    def key(self) -> str:
        own = {**vars(self), "student": fingerprint(self.student)}
        own["teacher"] = fingerprint(self.teacher)
        return f"probe-{self.task.name}-{key(own, code_of('pipelines.stages.probe'))}"

    def make(self, machine: Machine, _folder: Path, _line: int) -> ModelProbe:
        return _probe(self, machine)


def probe(parameters: Parameters) -> ProbeResult:
    settings, seed = parameters.probe, parameters.seeds[0]
    machine = Machine.of(parameters.runtime, settings.examples)
    if not all(_shares_ids(task, seed) for task in parameters.tasks):
        return ProbeResult(took(machine.device), seed, settings.k, {}, "tokenizers differ")
    tasks = {name: training_data(name, parameters.budget[name]) for name in parameters.tasks}
    # Of the methods those that the experiment runs
    students = {
        (name, model): folder
        for name in tasks
        for model in (UNTRAINED, *settings.methods)
        if (folder := _student(model, name, seed)).exists()
    }
    jobs = [
        Probing(
            replace(tasks[name], train=[], validation=tasks[name].validation[: settings.examples]),
            student,
            folders.teacher(name),
            seed,
            parameters.distill,
            replace(settings, methods=[]),  # the other students say nothing of this one
            machine.device.type,
        )
        for (name, _), student in students.items()
    ]
    by_task: dict[str, dict[str, ModelProbe]] = {name: {} for name in tasks}
    for (name, model), done in zip(students, run_jobs(jobs, machine), strict=True):
        by_task[name][model] = done.result
    return ProbeResult(took(machine.device), seed, settings.k, by_task)


def _student(model: str, task: str, seed: int) -> Path:
    if model == UNTRAINED:
        return folders.start(task, seed)
    return folders.student(model, task, seed)


def _shares_ids(task: str, seed: int) -> bool:
    folders_of_pair = (folders.teacher(task), folders.start(task, seed))
    return share_ids(*(load_tokenizer(folder) for folder in folders_of_pair))


def _probe(job: Probing, machine: Machine) -> ModelProbe:
    task, seed, settings = job.task, job.seed, job.settings
    tokenizer = load_tokenizer(job.student)
    student = load_model(job.student, machine.device)
    teacher = load_model(
        job.teacher,
        machine.device,
        weights=held_in(job.teacher),
        layers=machine.runtime.teacher_device,
    )
    vocabulary = common_vocabulary(tokenizer, student, teacher)
    start = decoder_start(student)
    reading = (task.prompt, tokenizer, task.budget, start, vocabulary)
    examples = encode(task.validation, *reading).examples
    prompts = [example.prompt for example in examples]
    length = task.budget.max_new_tokens
    noise = uniform_noise(len(prompts), length, generator(seed, "probe", task.name))
    distill = job.distill
    interleaving = Interleaving(teacher, Acceptance("top_k", settings.k), distill.teacher_sampling)
    # As many rows at once as a training run samples
    at_once = distill.rollout_steps * distill.optimisation.batch_size
    parts = [slice(start, start + at_once) for start in range(0, len(prompts), at_once)]
    sampled, corrected = (
        [
            sample(
                student,
                prompts[part],
                vocabulary,
                distill.student_sampling,
                length,
                noise[:, part],
                judge,
            )
            for part in parts
        ]
        for judge in (None, interleaving)
    )
    known = [collate(examples[part], vocabulary.pad).to(machine.device) for part in parts]
    prefixes: dict[str, list[TokenBatch]] = {
        "ground_truth": known,
        "student": [rollout.batch for rollout in sampled],
        "interleaved": [rollout.batch for rollout in corrected],
    }
    ks = tuple(sorted({1, 5, settings.k}))
    few = prompts[: settings.drafted]
    return ModelProbe(
        agreement={
            kind: agreement(student, teacher, batches, vocabulary, ks)
            for kind, batches in prefixes.items()
        },
        proposals=judged(corrected),
        draft=draft_worth(student, teacher, few, vocabulary, length, noise[:, : len(few)]),
    )


def main(argv: list[str] | None = None) -> None:
    write_metrics("probe", probe(stage_parameters(Parameters, __doc__, argv)))


if __name__ == "__main__":
    run_command(main)
