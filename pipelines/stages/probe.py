"""Stage `probe`: do student and teacher agree, and is the student a good draft for its teacher?

Reads validation prompts, the first seed of each method and the students before it. Trains nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from pipelines.parameters import At
from pipelines.runs import folders
from pipelines.runs.inputs import TaskData, training_data
from pipelines.runs.machine import Machine
from pipelines.runs.workers import run_jobs
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
from skd.models.loading import load_model, load_tokenizer
from skd.models.pairs import common_vocabulary
from skd.models.settings import Budget
from skd.results.analyses import ModelProbe, ProbeResult
from skd.training.settings import Distill

UNTRAINED = "student_init"


@dataclass(frozen=True)
class Parameters:
    tasks: Annotated[list[str], At("experiment.tasks")]
    seeds: Annotated[list[int], At("experiment.seeds")]
    budget: dict[str, Budget]
    distill: Distill
    probe: Probe
    runtime: Runtime


def probe(parameters: Parameters) -> ProbeResult:
    machine = Machine.of(parameters.runtime, parameters.probe.examples)
    models = (UNTRAINED, *parameters.probe.methods)
    tasks = {name: training_data(name, parameters.budget[name]) for name in parameters.tasks}
    wanted = [(name, model) for name in tasks for model in models]
    jobs: list[Callable[[int], ModelProbe]] = [
        partial(_probe_model, parameters, machine, tasks[name], model) for name, model in wanted
    ]
    results = run_jobs(jobs, machine.jobs_at_once())
    by_task: dict[str, dict[str, ModelProbe]] = {name: {} for name in tasks}
    for (name, model), result in zip(wanted, results, strict=True):
        by_task[name][model] = result
    return ProbeResult(took(machine.device), parameters.seeds[0], parameters.probe.k, by_task)


def _probe_model(
    parameters: Parameters, machine: Machine, task: TaskData, model: str, _position: int
) -> ModelProbe:
    seed, settings = parameters.seeds[0], parameters.probe
    untrained = model == UNTRAINED
    folder = (
        folders.start(task.name, seed) if untrained else folders.student(model, task.name, seed)
    )
    tokenizer = load_tokenizer(folder)
    student = load_model(folder, machine.device)
    teacher = load_model(folders.teacher(task.name), machine.device)
    vocabulary = common_vocabulary(tokenizer, student, teacher)
    rows = task.validation[: settings.examples]
    start = decoder_start(student)
    examples = encode(rows, task.prompt, tokenizer, task.budget, start).examples
    prompts = [example.prompt for example in examples]
    length = task.budget.max_new_tokens
    noise = uniform_noise(len(prompts), length, generator(seed, "probe", task.name))
    distill = parameters.distill
    interleaving = Interleaving(teacher, Acceptance("top_k", settings.k), distill.teacher_sampling)
    drawn = (prompts, vocabulary, distill.student_sampling, length, noise)
    corrected = sample(student, *drawn, interleaving)
    prefixes: dict[str, TokenBatch] = {
        "ground_truth": collate(examples, vocabulary.pad).to(machine.device),
        "student": sample(student, *drawn).batch,
        "interleaved": corrected.batch,
    }
    ks = tuple(sorted({1, 5, settings.k}))
    few = prompts[: settings.drafted]
    return ModelProbe(
        agreement={
            kind: agreement(student, teacher, batch, vocabulary, ks)
            for kind, batch in prefixes.items()
        },
        proposals=judged(corrected),
        draft=draft_worth(student, teacher, few, vocabulary, length, noise[:, : len(few)]),
    )


def main(argv: list[str] | None = None) -> None:
    write_metrics("probe", probe(stage_parameters(Parameters, __doc__, argv)))


if __name__ == "__main__":
    run_command(main)
