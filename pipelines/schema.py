"""The typed form of `params.yaml`: its sections together, and what they say of each other.

Loading is strict: an unknown key, a wrong type or a value out of range is an error that names the
parameter. Stages read their own sections alone (`pipelines.parameters`); the first stage and the
tools read the whole file through here. Refuses to know DVC, Prefect, torch, and what depends on
what, which `dvc.yaml` says.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from pipelines.parameters import PARAMETERS
from pipelines.settings.evaluate import Evaluate
from pipelines.settings.experiment import Experiment
from pipelines.settings.fairness import Fairness
from pipelines.settings.probe import Probe
from pipelines.settings.report import Report
from pipelines.settings.runtime import Runtime
from pipelines.settings.scaling import Scaling
from pipelines.settings.sweeps import Sweep
from pipelines.yaml_text import read_yaml
from skd.data.settings import Data
from skd.errors import UserError
from skd.models.settings import Budget, Healing, LayersModel, Models, ProceduralModel
from skd.settings import STRICT, Name, describe_errors, label
from skd.training.methods import METHODS
from skd.training.settings import Distill, MethodSettings, Optimisation, Sft, changed


@dataclass(frozen=True, config=STRICT)
class Params:
    experiment: Experiment
    data: dict[Name, Data]
    budget: dict[Name, Budget]
    models: Models
    sft: Sft
    distill: Distill
    methods: dict[Name, MethodSettings]
    sweeps: dict[Name, Sweep]
    fairness: Fairness
    scaling: Scaling
    probe: Probe
    evaluate: Evaluate
    report: Report
    runtime: Runtime

    def __post_init__(self) -> None:
        for origin, names, complaint, known in self._references():
            for name in names:
                if name not in known:
                    raise ValueError(f"{origin} names {name!r}, {complaint.format(name)}")
        for task in self.experiment.tasks:
            if self.data[task].tests is not None:
                raise ValueError(
                    f"experiment.tasks names {task!r}, but data.{task}.tests makes it a row "
                    "that is only tested; move it to experiment.test_sets or remove `tests`"
                )
        for name in self.experiment.test_sets:
            self._check_test_set(name)
        self._check_codes()
        self._check_processes()
        for name in self.experiment.sweeps:
            row = self.sweeps[name]
            for value in row.values:
                row.varied(self.methods[row.method], self.distill, value)
            labels = [label(value) for value in row.values]
            for twice in {text for text in labels if labels.count(text) > 1}:
                raise ValueError(f"sweeps.{name}.values has {twice!r} twice; remove one")
        if self.models.cross_tokenizer is not None:
            self._check_cross_tokenizer()
        if self.experiment.fairness:
            for method, knob in self.fairness.knobs.items():
                for value in knob.values:
                    changed(self.methods[method], {knob.setting: value}, f"methods.{method}")

    def _references(self) -> Iterator[tuple[str, Iterable[Any], str, Container[Any]]]:
        """What names what: (parameter, its names, what to say of a wrong one, what there is)."""
        asked = self.experiment
        yield "experiment.tasks", asked.tasks, "but data.{} is missing", self.data
        yield "experiment.tasks", asked.tasks, "but budget.{} is missing", self.budget
        yield "experiment.test_sets", asked.test_sets, "but data.{} is missing", self.data
        yield "experiment.methods", asked.methods, "but methods.{} is missing", self.methods
        yield "experiment.sweeps", asked.sweeps, "but sweeps.{} is missing", self.sweeps
        yield (
            "experiment.students",
            asked.students,
            "but scaling.students.{} is missing",
            self.scaling.students,
        )
        yield "experiment.fairness", asked.fairness, "which experiment.tasks does not", asked.tasks
        yield "probe.methods", self.probe.methods, "but methods.{} is missing", self.methods
        for name, row in self.sweeps.items():
            yield f"sweeps.{name}.method", [row.method], "but methods.{} is missing", self.methods
        running: list[tuple[str, Sweep | Scaling]] = [
            (f"sweeps.{name}", self.sweeps[name]) for name in asked.sweeps if name in self.sweeps
        ]
        if asked.students:
            running.append(("scaling", self.scaling))
            yield "scaling.methods", self.scaling.methods, "but methods.{} is missing", self.methods
        for origin, part in running:
            yield f"{origin}.tasks", part.tasks, "which experiment.tasks does not", asked.tasks
        # Students before distillation exist for these seeds; `scaling` makes its own.
        seeds = [(origin, part.seeds) for origin, part in running if isinstance(part, Sweep)]
        if asked.fairness:
            seeds.append(("fairness", self.fairness.seeds))
            yield "fairness.knobs", self.fairness.knobs, "but methods.{} is missing", self.methods
        for origin, own in seeds:
            yield f"{origin}.seeds", own, "which experiment.seeds does not", asked.seeds

    def _check_codes(self) -> None:
        """Merged, an adapter moves each weight by less than the step between two codes, and weights
        that lie on codes go back to these when they are put in the same codes again.
        """
        student, teacher = self.sft.student, self.sft.teacher
        pairs = {
            ("sft.student.weights", "distill.optimisation.weights"): (
                student.weights,
                self.distill.optimisation.weights,
            ),
            ("sft.teacher.weights", "models.teacher_weights"): (
                None if teacher is None else teacher.weights,
                self.models.teacher_weights,
            ),
        }
        for (first, then), (trained, held) in pairs.items():
            if trained == held and trained in ("int8", "nf4"):
                raise ValueError(
                    f"{first} and {then} are both {held}: what the adapter has learned would be "
                    f"rounded away when its merged weights are put in {held} again; set {first}: "
                    "bfloat16"
                )

    def _check_processes(self) -> None:
        """Of every run that several processes share: each has a row, and what can be cut is cut."""
        runtime = self.runtime
        if runtime.processes == 1:
            return
        for path, run in self._trained().items():
            rows, even = run.batch_size, runtime.shard is not None
            if rows < runtime.processes or (even and rows % runtime.processes):
                raise ValueError(
                    f"{path}.batch_size is {rows}, and runtime.processes: {runtime.processes} "
                    f"share its rows{', as many each with runtime.shard' if even else ''}; set "
                    "another batch_size or fewer processes"
                )
            if even and isinstance(run, Optimisation):
                if run.adapter is not None or run.weights in ("int8", "nf4"):
                    raise ValueError(
                        f"runtime.shard: {runtime.shard} cuts what the optimiser has of whole "
                        f"weights, and {path}.adapter leaves it little; remove one of the two"
                    )
                if run.optimiser != "adamw":
                    raise ValueError(
                        f"{path}.optimiser: {run.optimiser} has codes of blocks that parts of "
                        f"weights would cut; with runtime.shard: {runtime.shard} take adamw"
                    )

    def _trained(self) -> dict[str, Optimisation | ProceduralModel | Healing]:
        """Where each kind of run is set -> its settings."""
        found: dict[str, Any] = {
            "sft.teacher": self.sft.teacher,
            "sft.student": self.sft.student,
            "distill.optimisation": self.distill.optimisation,
            "models.teacher": self.models.teacher,
            "models.student": self.models.student,
        }
        found |= {f"scaling.students.{name}": m for name, m in self.scaling.students.items()}
        found |= {f"{path}.heal": m.heal for path, m in found.items() if isinstance(m, LayersModel)}
        kinds = (Optimisation, ProceduralModel, Healing)
        return {path: part for path, part in found.items() if isinstance(part, kinds)}

    def _check_cross_tokenizer(self) -> None:
        """Across two tokenizers runs only what needs no shared ids."""
        asked = self.experiment
        running = {"experiment.methods": list(asked.methods)}
        running |= {f"sweeps.{name}.method": [self.sweeps[name].method] for name in asked.sweeps}
        if asked.fairness:
            running["fairness.knobs"] = list(self.fairness.knobs)
        if asked.students:
            running["scaling.methods"] = self.scaling.methods
        for origin, names in running.items():
            for name in names:
                if METHODS[self.methods[name].method].needs_shared_ids:
                    able = [m for m, row in METHODS.items() if not row.needs_shared_ids]
                    raise ValueError(
                        f"{origin} names {name!r}: it needs a teacher and a student that share "
                        "their ids, as all interleaved sampling does, and models.cross_tokenizer "
                        f"is for those that do not; these methods work: {', '.join(able)}"
                    )
        if self.distill.teacher_cache == "always":
            raise ValueError(
                "distill.teacher_cache: always keeps the teacher's states at the student's tokens, "
                "and with models.cross_tokenizer there are none; set it to auto"
            )

    def _check_test_set(self, name: str) -> None:
        row = self.data[name]
        if row.tests is None:
            raise ValueError(
                f"experiment.test_sets names {name!r}: say in data.{name}.tests which task's "
                "models are tested on it"
            )
        if row.tests not in self.experiment.tasks:
            raise ValueError(
                f"data.{name}.tests names {row.tests!r}, which experiment.tasks does not"
            )
        kind = self.data[row.tests].task
        if row.task != kind:
            raise ValueError(
                f"data.{name}.task is {row.task!r}, but the models of {row.tests!r} do {kind!r}; "
                "a test set is of its task's kind"
            )


_PARAMS = TypeAdapter(Params)


def load(file: Path = PARAMETERS) -> Params:
    """Read and check a whole parameter file. Raises `UserError` naming each bad parameter."""
    return parse(read_yaml(file), str(file))


def parse(document: object, origin: str = str(PARAMETERS)) -> Params:
    """Check what stands in a parameter file. Raises `UserError` naming each bad parameter."""
    try:
        return _PARAMS.validate_python(document)
    except ValidationError as error:
        lines = [f"{origin}: {complaint}" for complaint in describe_errors(error)]
        raise UserError("\n".join(lines)) from None
