"""What the teacher does for a run before its first step: its own responses, and its states at
responses that are known.

Kept states are shared between runs in scratch, and count as if each run had made its own. Refuses
to know how a run trains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.closure import code_of
from pipelines.runs.bars import rows_bar
from pipelines.runs.crossing import Crossing
from pipelines.runs.machine import Machine
from pipelines.runs.scratch import alone, fingerprint, key
from skd.engine.meter import Phase, Stopwatch
from skd.engine.pair import Pair
from skd.engine.sequences import TokenExample
from skd.models.encoding import Encoded
from skd.results.runs import Preparation
from skd.training.counts import RunCounts, spent
from skd.training.decoding import teacher_responses
from skd.training.group import Group
from skd.training.methods import METHODS, ResponseSource
from skd.training.responses import KnownResponses
from skd.training.settings import DECODING
from skd.training.teacher_cache import KeptStates, keep, pays

if TYPE_CHECKING:  # that module imports this one
    from pipelines.runs.training import RunSpec


@dataclass(frozen=True)
class Prepared:
    known: KnownResponses
    # The teacher's states at the responses trained on, and at the validation rows'; None: not kept
    kept: KeptStates | None
    kept_held_out: KeptStates | None
    # By `Phase`, spent on the teacher's own responses
    seconds: Mapping[str, float]

    def charge(self, counts: RunCounts) -> Preparation:
        """Add what was spent here to a run's counts; gives the part that no step repeats."""
        seconds, sampled = 0.0, 0
        if ResponseSource.TEACHER in self.known:
            examples = self.known[ResponseSource.TEACHER]
            counts.spend(self.seconds)
            counts.teacher_tokens += sum(len(e.prompt) + len(e.response) for e in examples)
            seconds, sampled = sum(self.seconds.values()), sum(len(e.response) for e in examples)
        if self.kept_held_out is not None:
            counts.spend({Phase.VALIDATION: self.kept_held_out.seconds})
        if self.kept is not None:
            counts.spend({Phase.TEACHER: self.kept.seconds})
            counts.teacher_passes += self.kept.passes
            counts.teacher_tokens += self.kept.teacher_tokens
            seconds += self.kept.seconds
        return Preparation(seconds, sampled)


def prepare(
    spec: RunSpec,
    machine: Machine,
    pair: Pair,
    encoded: Encoded,
    held_out: Encoded,
    crossing: Crossing | None,
    line: int,
    group: Group,
) -> Prepared:
    """All of it. Across two tokenizers nothing is kept: the states are at other tokens.

    line: of the progress bar.
    """
    watch = Stopwatch(machine.device)
    known = _known_responses(spec, machine, pair, encoded, crossing, line, group)
    watch.lap(Phase.TEACHER)
    seconds = spent(watch, group)
    if crossing is not None:
        return Prepared(known, None, None, seconds)
    optimisation = spec.distill.optimisation
    source = (
        ResponseSource.TEACHER if ResponseSource.TEACHER in known else ResponseSource.GROUND_TRUTH
    )
    uses = METHODS[spec.settings.method].known_share * optimisation.prompts
    kept = _kept_states(spec, machine, pair, known[source], uses, line, group)
    uses = optimisation.validations * len(held_out.examples)
    kept_held_out = _kept_states(spec, machine, pair, held_out.examples, uses, line, group)
    return Prepared(known, kept, kept_held_out, seconds)


def _known_responses(
    spec: RunSpec,
    machine: Machine,
    pair: Pair,
    encoded: Encoded,
    crossing: Crossing | None,
    line: int,
    group: Group,
) -> KnownResponses:
    """The responses that are known before the first step: ground truth and, if asked for, the
    teacher's own, in the student's ids.
    """
    known: dict[ResponseSource, Sequence[TokenExample]] = {
        ResponseSource.GROUND_TRUTH: encoded.examples
    }
    if ResponseSource.TEACHER in METHODS[spec.settings.method].sources:
        assert pair.teacher is not None
        length = spec.task.budget.max_new_tokens
        asked = encoded.examples if crossing is None else crossing.asked
        what, own = f"{spec.name}: the teacher's responses", len(group.share(len(asked)))
        with rows_bar(what, own, machine, line) as bar:
            made = teacher_responses(
                pair.teacher,
                asked,
                pair.vocabulary if crossing is None else crossing.bridge.vocabulary,
                length,
                machine.decoding_batch,
                DECODING[spec.settings.decoding],
                spec.seed,
                bar.update,
                group,
            )
        known[ResponseSource.TEACHER] = (
            made if crossing is None else crossing.to_student(made, length)
        )
    return known


def _kept_states(
    spec: RunSpec,
    machine: Machine,
    pair: Pair,
    examples: Sequence[TokenExample],
    uses: float,
    line: int,
    group: Group,
) -> KeptStates | None:
    """The teacher's states at these responses where keeping them pays, shared between runs.

    The first process makes them, and the others read them then.

    uses: how often the run asks for the states of an example, over all examples.
    """
    if pair.teacher is None or spec.teacher_folder is None or not uses:
        return None
    if not pays(spec.distill.teacher_cache, uses, examples, pair.teacher):
        return None
    optimisation = spec.distill.optimisation
    rows = optimisation.micro_batch_size or optimisation.batch_size
    name = key(
        fingerprint(spec.teacher_folder),
        [vars(example) for example in examples],
        f"{pair.teacher.device.type} {pair.teacher.dtype} {rows}",
        code_of("skd.training.teacher_cache"),
    )
    path = machine.scratch / f"teacher-{name}.safetensors"
    what = f"{spec.name}: the teacher's states"
    if not group.first:
        group.wait()
    with alone(path), rows_bar(what, len(examples), machine, line) as bar:
        kept = keep(path, pair.teacher, examples, pair.vocabulary, rows, bar.update)
    if group.first:
        group.wait()
    return kept
