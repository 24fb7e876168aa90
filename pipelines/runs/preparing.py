"""What the teacher does for a run before its first step: its own responses, and its states at
responses that are known.

Kept states are shared between runs in scratch, and count as if each run had made its own. Refuses
to know how a run trains.
"""

from __future__ import annotations

from collections.abc import Sequence
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
from skd.training.counts import RunCounts
from skd.training.methods import METHODS, ResponseSource
from skd.training.responses import KnownResponses, teacher_responses
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
    # Spent on the teacher's own responses
    watch: Stopwatch

    def charge(self, counts: RunCounts) -> Preparation:
        """Add what was spent here to a run's counts; gives the part that no step repeats."""
        seconds, sampled = 0.0, 0
        if ResponseSource.TEACHER in self.known:
            examples = self.known[ResponseSource.TEACHER]
            counts.spend(self.watch.seconds)
            counts.teacher_tokens += sum(len(e.prompt) + len(e.response) for e in examples)
            seconds, sampled = self.watch.total, sum(len(e.response) for e in examples)
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
) -> Prepared:
    """All of it. Across two tokenizers nothing is kept: the states are at other tokens.

    line: of the progress bar.
    """
    watch = Stopwatch(machine.device)
    known = _known_responses(spec, machine, pair, encoded, crossing, line)
    watch.lap(Phase.TEACHER)
    if crossing is not None:
        return Prepared(known, None, None, watch)
    optimisation = spec.distill.optimisation
    source = (
        ResponseSource.TEACHER if ResponseSource.TEACHER in known else ResponseSource.GROUND_TRUTH
    )
    uses = METHODS[spec.settings.method].known_share * optimisation.prompts
    kept = _kept_states(spec, machine, pair, known[source], uses, line)
    uses = optimisation.validations * len(held_out.examples)
    kept_held_out = _kept_states(spec, machine, pair, held_out.examples, uses, line)
    return Prepared(known, kept, kept_held_out, watch)


def _known_responses(
    spec: RunSpec,
    machine: Machine,
    pair: Pair,
    encoded: Encoded,
    crossing: Crossing | None,
    line: int,
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
        with rows_bar(f"{spec.name}: the teacher's responses", len(asked), machine, line) as bar:
            made = teacher_responses(
                pair.teacher,
                asked,
                pair.vocabulary if crossing is None else crossing.bridge.vocabulary,
                length,
                machine.decoding_batch,
                DECODING[spec.settings.decoding],
                spec.seed,
                bar.update,
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
) -> KeptStates | None:
    """The teacher's states at these responses where keeping them pays, shared between runs.

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
    with alone(path), rows_bar(what, len(examples), machine, line) as bar:
        return keep(path, pair.teacher, examples, pair.vocabulary, rows, bar.update)
