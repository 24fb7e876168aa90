"""The responses of a step: sampled, known beforehand or both, with the teacher's states at them.

Knows ids and the columns of a method that concern the response. Refuses to know text, the loss and
the optimiser.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from skd.engine.meter import Phase, Stopwatch
from skd.engine.pair import Pair
from skd.engine.rollout import Rollout, uniform_noise
from skd.engine.sampling import Interleaving, sample
from skd.engine.seeding import generator
from skd.engine.sequences import TokenBatch, TokenExample, collate
from skd.engine.settings import Acceptance
from skd.engine.states import batch_states, evaluating, states_width
from skd.training.cross_tokenizer import Bridge
from skd.training.methods import Method, ResponseSource
from skd.training.rows import Key, PlannedRow, places_of, plan_rows
from skd.training.settings import Distill

# The responses that are known before the first step, by where they come from. Ground truth is
# always there: the prompts are read from it, so all sources have the same prompts in one order.
KnownResponses = Mapping[ResponseSource, Sequence[TokenExample]]
# The teacher's states [len(response), d] where it predicts an example's response
StatesByExample = Mapping[TokenExample, Tensor]

# Training batches that go through the teacher together: its forward keeps neither activations nor
# logits. On a CPU a rollout of `on_policy_kd` took a fifth less than with one (docs/adr/0013).
_BATCHES_AT_ONCE = 4


@dataclass(frozen=True)
class Responses:
    """Rows to train on, and what making them took."""

    # With the teacher's states where a row's loss needs them
    batch: TokenBatch
    # Behind the sampled rows
    rollouts: tuple[Rollout, ...]
    teacher_passes: int
    # Tokens that went through the teacher
    teacher_tokens: int
    # By `Phase`
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class Responder:
    """What the responses of a run are made with, at every step."""

    method: Method
    acceptance: Acceptance
    distill: Distill
    pair: Pair
    known: KnownResponses
    max_new_tokens: int
    kept: StatesByExample = field(default_factory=dict)
    # To a teacher that reads other ids; None: it reads the student's
    bridge: Bridge | None = None

    @property
    def rows_per_prompt(self) -> int:
        return 2 if self.method.paired else 1

    def respond(
        self,
        prompts: Sequence[int],
        progress: Sequence[float],
        key: Key,
        own: Container[int] | None = None,
    ) -> Responses:
        """Responses to these prompts, given by their places in the known responses.

        The rows are in the prompts' order, and none depends on the others. The teacher scored
        every kept token of interleaved rows while it verified them, and `kept` has its states at
        known responses, so that only the other rows cost a forward pass of the teacher.

        Args:
            progress: the share of the run that is done when each prompt's rows are trained on.
            key: names the random numbers of this step.
            own: which of the prompts are asked for here; None: all.
        """
        planned = plan_rows(self.method, prompts, progress, key)
        rows = planned
        if own is not None:
            rows = [row for row in planned if row.number // self.rows_per_prompt in own]
        watch = Stopwatch(self.pair.student.device)
        rollouts = self._rollouts(rows, len(planned), key)
        for rollout in rollouts.values():
            watch.absorb(rollout.cost.watch.seconds, rest=Phase.DATA)
        batch = self._merge(rows, rollouts).to(self.pair.student.device)
        watch.lap(Phase.DATA)
        passes = sum(rollout.cost.teacher_passes for rollout in rollouts.values())
        tokens = sum(rollout.cost.teacher_tokens for rollout in rollouts.values())
        taught = any(self.method.loss_of(row.otherwise).needs_teacher for row in rows)
        if batch.teacher_states is None and taught:
            if self.bridge is None:
                batch, fresh_passes, fresh_tokens = self._teach(batch, rows, rollouts)
            else:
                asked = self._rows_to_teach(rows)
                batch, fresh_passes, fresh_tokens = self.bridge.teach(batch, asked, self._at_once)
            passes, tokens = passes + fresh_passes, tokens + fresh_tokens
            watch.lap(Phase.TEACHER)
        return Responses(batch, tuple(rollouts.values()), passes, tokens, watch.seconds)

    def _rollouts(
        self, rows: Sequence[PlannedRow], count: int, key: Key
    ) -> dict[ResponseSource, Rollout]:
        """A rollout for each sampled source. A row's random numbers do not depend on the others.

        count: rows of the whole rollout, of which these are some.
        """
        rollouts = {}
        noise = None
        for source in dict.fromkeys(row.source for row in rows if row.source.sampled):
            if noise is None:
                noise = uniform_noise(count, self.max_new_tokens, generator(*key, "noise"))
            places = places_of(rows, source)
            asked = [rows[place] for place in places]
            rollouts[source] = sample(
                self.pair.student,
                [self._example(row).prompt for row in asked],
                self.pair.vocabulary,
                self.distill.student_sampling,
                self.max_new_tokens,
                noise[:, [row.number for row in asked]],
                self._interleaving(asked) if source is ResponseSource.INTERLEAVED else None,
                self.distill.block_size,
            )
        return rollouts

    def _interleaving(self, rows: Sequence[PlannedRow]) -> Interleaving:
        assert self.pair.teacher is not None
        progress = torch.tensor([row.progress for row in rows], dtype=torch.float64)
        return Interleaving(
            self.pair.teacher, self.acceptance, self.distill.teacher_sampling, progress
        )

    def _example(self, row: PlannedRow) -> TokenExample:
        """The known response of a row. A row that is sampled takes its prompt from it."""
        source = ResponseSource.GROUND_TRUTH if row.source.sampled else row.source
        return self.known[source][row.prompt]

    def _merge(
        self, rows: Sequence[PlannedRow], rollouts: Mapping[ResponseSource, Rollout]
    ) -> TokenBatch:
        """One batch of sampled and known responses, each in its row."""
        marks = None
        if self.method.otherwise_loss is not None:
            marks = torch.tensor([row.otherwise for row in rows])
        if len(rollouts) == 1 and all(row.source.sampled for row in rows):
            (rollout,) = rollouts.values()
            return dataclasses.replace(rollout.batch, otherwise=marks)
        examples = [self._example(row) for row in rows]
        for source, rollout in rollouts.items():
            responses = rollout.batch.responses()
            for place, response in zip(places_of(rows, source), responses, strict=True):
                examples[place] = TokenExample(examples[place].prompt, response)
        batch = collate(examples, self.pair.vocabulary.pad)
        replaced = None
        for source, rollout in rollouts.items():
            batch = batch.to(rollout.batch.tokens.device)
            if replaced is None:
                replaced = torch.zeros_like(batch.tokens, dtype=torch.bool)
            if rollout.batch.replaced is not None:
                width = rollout.batch.tokens.shape[1]
                replaced[places_of(rows, source), :width] = rollout.batch.replaced
        return dataclasses.replace(batch, replaced=replaced, otherwise=marks)

    @torch.no_grad()
    def _teach(
        self,
        batch: TokenBatch,
        rows: Sequence[PlannedRow],
        rollouts: Mapping[ResponseSource, Rollout],
    ) -> tuple[TokenBatch, int, int]:
        """The batch with the teacher's states: fresh ones in rows that need and do not have them.

        Also gives the passes that took and the tokens in them.
        """
        teacher = self.pair.teacher
        assert teacher is not None
        shape = (*batch.tokens.shape, states_width(teacher))
        states = torch.zeros(shape, dtype=teacher.dtype, device=batch.tokens.device)
        missing = set(self._rows_to_teach(rows))
        for place, row in enumerate(rows):
            example = self._example(row)
            if not row.source.sampled and example in self.kept:
                first, own = len(example.prompt) - 1, self.kept[example]
                states[place, first : first + len(own)] = own.to(states.device)
                missing.discard(place)
        for source, rollout in rollouts.items():
            if (verified := rollout.batch.teacher_states) is not None:
                places = places_of(rows, source)
                states[places, : verified.shape[1]] = verified
                missing -= set(places)
        # Rows of like length go through the teacher side by side.
        order = sorted(sorted(missing), key=batch.lengths.tolist().__getitem__)
        size = self._at_once
        parts = [order[start : start + size] for start in range(0, len(order), size)]
        for places in parts:
            part = batch.take(places)
            with evaluating(teacher):
                own = batch_states(teacher, part)
            states[places, : part.tokens.shape[1]] = own.to(states.dtype)
        tokens = int(batch.lengths[order].sum())
        return dataclasses.replace(batch, teacher_states=states), len(parts), tokens

    def _rows_to_teach(self, rows: Sequence[PlannedRow]) -> list[int]:
        """The places of rows whose loss needs the teacher."""
        return [
            place
            for place, row in enumerate(rows)
            if self.method.loss_of(row.otherwise).needs_teacher
        ]

    @property
    def _at_once(self) -> int:
        """Rows of a pass of the teacher."""
        optimisation = self.distill.optimisation
        return _BATCHES_AT_ONCE * (optimisation.micro_batch_size or optimisation.batch_size)
