"""What an experiment consists of: the training runs and the tests of each stage, as plain values.

Runs that cost the same stand in one row. Knows parameters, sizes and lengths; refuses to know
memory, time and devices.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from pipelines.planning.lengths import HEALING, UNSAID, Rows, TaskLengths, widest
from pipelines.planning.sizes import Sizes
from pipelines.runs.placing import PRETRAINING_BUDGET, PRETRAINING_HELD_OUT
from pipelines.runs.pruning import HEALING_METHOD, healed, healing
from pipelines.schema import Params
from pipelines.settings.sweeps import STUDENT_EXAMPLES, Sweep
from skd.models.settings import ProceduralModel, StudentModel
from skd.training.methods import METHODS, Method, ResponseSource
from skd.training.settings import Distill, MethodSettings, Optimisation, changed

# Ids that an encoder–decoder's decoder begins with, at most: a start and a language's code
START = 2
# A student and, where the run has one, its teacher
Pair = tuple[Sizes, Sizes | None]


@dataclass(frozen=True)
class Training:
    """Training runs of a stage that cost the same."""

    stage: str
    task: str
    runs: int
    student: Sizes
    # None: the run has no teacher
    teacher: Sizes | None
    settings: MethodSettings
    distill: Distill
    rows: Rows
    held_out: Rows
    # Tokens of the longest prompt, response, and row that is trained on, and of a response at most
    prompt: int
    response: int
    width: int
    max_new_tokens: int

    @property
    def method(self) -> Method:
        return METHODS[self.settings.method]

    @property
    def optimisation(self) -> Optimisation:
        return self.distill.optimisation

    @property
    def rows_per_step(self) -> int:
        return self.optimisation.batch_size * (2 if self.method.paired else 1)

    @property
    def rows_at_once(self) -> int:
        """Of a micro-batch."""
        return min(self.optimisation.micro_batch_size or self.rows_per_step, self.rows_per_step)

    @property
    def source(self) -> int:
        """Tokens of a row that an encoder reads."""
        return 0 if self.student.encoder is None else self.prompt

    @property
    def decoded(self) -> int:
        """Tokens of a row that a decoder reads."""
        return self.width if self.student.encoder is None else self.response + START

    @property
    def sampled(self) -> bool:
        return any(source.sampled for source in self.method.sources)

    @property
    def interleaved(self) -> bool:
        return ResponseSource.INTERLEAVED in self.method.sources


@dataclass(frozen=True)
class Testing:
    """Models that a stage decodes a split with."""

    stage: str
    task: str
    runs: int
    model: Sizes
    prompts: int
    prompt: int
    max_new_tokens: int


@dataclass(frozen=True)
class Models:
    """The sizes of all models of an experiment."""

    teacher: Sizes
    student: Sizes
    # Rows of `scaling.students` that run
    others: Mapping[str, Sizes]


def trainings(
    params: Params, models: Models, lengths: Mapping[str, TaskLengths]
) -> Iterator[Training]:
    """Every training run of the experiment, in the order of the stages."""
    teacher, student = models.teacher, models.student
    for role, settings in (("teacher", params.models.teacher), ("student", params.models.student)):
        yield from _pretraining("base", role, settings, vars(models)[role])
    asked, pair = params.experiment, (student, teacher)
    if (heal := healed(params.models.student)) is not None:
        known = lengths[HEALING]
        yield _run("base", HEALING, pair, HEALING_METHOD, healing(heal, 1), known, [0])
    for task in asked.tasks:
        known = lengths[task]
        if params.sft.teacher is not None:
            everything = replace(known, budget=replace(known.budget, student_examples=None))
            yield _tuning(params.sft.teacher, task, teacher, everything, [0])
        yield _tuning(params.sft.student, task, student, known, asked.seeds)
    for name in asked.methods:
        for task in asked.tasks:
            row, stage = params.methods[name], f"distill@{name}"
            yield _run(stage, task, pair, row, params.distill, lengths[task], asked.seeds)
    for name in asked.sweeps:
        yield from _sweep(params, params.sweeps[name], pair, lengths)
    for task in asked.fairness:
        yield from _fairness(params, task, pair, lengths[task])
    for name, sizes in models.others.items():
        yield from _scaling(params, name, (sizes, teacher), lengths)


def _pretraining(stage: str, name: str, settings: StudentModel, sizes: Sizes) -> Iterator[Training]:
    """Of a model that is made here; others come trained."""
    if isinstance(settings, ProceduralModel) and settings.steps:
        optimisation = Optimisation(settings.steps, settings.batch_size, settings.learning_rate)
        lengths = TaskLengths(PRETRAINING_BUDGET, (UNSAID, PRETRAINING_HELD_OUT))
        tuning = _tuning(optimisation, name, sizes, lengths, [settings.seed])
        yield replace(tuning, stage=stage)


def _sweep(
    params: Params, sweep: Sweep, pair: Pair, lengths: Mapping[str, TaskLengths]
) -> Iterator[Training]:
    for task, value in product(sweep.tasks, sweep.values):
        row, distill = sweep.varied(params.methods[sweep.method], params.distill, value)
        known = lengths[task]
        if sweep.setting == STUDENT_EXAMPLES:
            known = replace(known, budget=replace(known.budget, student_examples=value))
        yield _run("sweep", task, pair, row, distill, known, sweep.seeds)


def _fairness(params: Params, task: str, pair: Pair, lengths: TaskLengths) -> Iterator[Training]:
    """The tries of each method, then what was chosen at three equal budgets.

    Two of them may give a method more steps; how many is known when the runs are done.
    """
    settings = params.fairness
    for name, knob in settings.knobs.items():
        row = params.methods[name]
        for value in knob.values:
            tried = changed(row, {knob.setting: value}, f"methods.{name}")
            tries = _run("fairness", task, pair, tried, params.distill, lengths, settings.seeds[:1])
            yield replace(tries, runs=len(settings.learning_rates))
        chosen = _run("fairness", task, pair, row, params.distill, lengths, settings.seeds)
        yield replace(chosen, runs=3 * len(settings.seeds))


def _scaling(
    params: Params, name: str, pair: Pair, lengths: Mapping[str, TaskLengths]
) -> Iterator[Training]:
    """Another student, from its base to its distillation."""
    settings, stage = params.scaling, f"scaling@{name}"
    yield from _pretraining(stage, name, settings.students[name], pair[0])
    for task in settings.tasks:
        tuning = _tuning(params.sft.student, task, pair[0], lengths[task], settings.seeds)
        yield replace(tuning, stage=stage)
        for method in settings.methods:
            row = params.methods[method]
            yield _run(stage, task, pair, row, params.distill, lengths[task], settings.seeds)


def testings(
    params: Params, models: Models, lengths: Mapping[str, TaskLengths]
) -> Iterator[Testing]:
    """Every model that `evaluate` tests, on every split."""
    asked = params.experiment
    students = len(asked.seeds) * (1 + len(asked.methods)) + 1
    for name in (*asked.tasks, *asked.test_sets):
        task = params.data[name].tests or name
        budget = params.budget.get(name, lengths[task].budget)
        for model, runs in ((models.teacher, 1), (models.student, students)):
            yield Testing(
                "evaluate",
                name,
                runs,
                model,
                params.data[name].test_size or UNSAID,
                budget.max_prompt_tokens,
                budget.max_new_tokens,
            )


def _tuning(
    optimisation: Optimisation,
    task: str,
    sizes: Sizes,
    lengths: TaskLengths,
    seeds: Sequence[int],
) -> Training:
    settings, distill = MethodSettings(method="sft"), Distill(optimisation=optimisation)
    return _run("sft", task, (sizes, None), settings, distill, lengths, seeds)


def _run(
    stage: str,
    task: str,
    pair: Pair,
    settings: MethodSettings,
    distill: Distill,
    lengths: TaskLengths,
    seeds: Sequence[int],
) -> Training:
    optimisation = distill.optimisation
    rows = [lengths.seen(lengths.budget.student_examples, seed) for seed in seeds]
    sources = METHODS[settings.method].sources
    known = sources == (ResponseSource.GROUND_TRUTH,)
    longest = None if known else lengths.budget.max_new_tokens
    held_out = lengths.held_out(optimisation.validation_examples)
    return Training(
        stage=stage,
        task=task,
        runs=len(seeds),
        student=pair[0],
        teacher=pair[1],
        settings=settings,
        distill=distill,
        rows=rows[0],
        held_out=held_out,
        prompt=max(max(one.prompts) for one in (*rows, held_out)),
        response=longest or max(max(one.responses) for one in rows),
        width=max(
            widest(own, optimisation, seed, longest) for own, seed in zip(rows, seeds, strict=True)
        ),
        max_new_tokens=lengths.budget.max_new_tokens,
    )
