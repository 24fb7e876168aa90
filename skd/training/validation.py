"""The validation that selects weights: the task's metric, the loss and the distance to the teacher.

Decoding is greedy (paper, section 4). The metric is handed in, since only its owner knows text.
Trains nothing and writes no files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from skd.engine.generation import Generated
from skd.engine.sequences import TokenBatch, TokenExample, Vocabulary, collate
from skd.engine.spans import Spans
from skd.engine.states import batch_states, evaluating
from skd.results.runs import Validation
from skd.training.chunks import Predictions
from skd.training.cross_tokenizer import Bridge, span_loss
from skd.training.decoding import generate_together
from skd.training.group import ALONE, Group
from skd.training.losses import Terms, response_loss
from skd.training.methods import CROSS_ENTROPY, DIVERGENCE
from skd.training.responses import StatesByExample
from skd.training.settings import Divergence


@dataclass(frozen=True)
class Validator:
    """Scores a model on held-out examples."""

    examples: Sequence[TokenExample]
    # Greedy outputs of the examples' prompts -> the task's metric, percent
    measure: Callable[[Generated], float]
    vocabulary: Vocabulary
    max_new_tokens: int
    batch_size: int
    teacher: PreTrainedModel | None = None
    # The teacher's states at the examples' responses; None: made anew each time
    kept: StatesByExample | None = None
    # To a teacher that reads other ids; None: it reads the model's
    bridge: Bridge | None = None
    # The processes that score a model together
    group: Group = ALONE

    def __call__(self, model: PreTrainedModel) -> Validation:
        prompts = [example.prompt for example in self.examples]
        generated = generate_together(
            self.group, model, prompts, self.vocabulary, self.max_new_tokens, self.batch_size
        )
        loss, kl = self._along_the_ground_truth(model)
        (metric,) = self.group.totals([self.measure(generated) if self.group.first else 0.0])
        return Validation(metric=metric, loss=loss, kl=kl)

    @torch.no_grad()
    def _along_the_ground_truth(self, model: PreTrainedModel) -> tuple[float, float | None]:
        """Cross-entropy and KL(teacher ‖ model), nats per response token."""
        loss_sum = kl_sum = 0.0
        tokens = 0.0
        examples = [self.examples[place] for place in self.group.share(len(self.examples))]
        with evaluating(model):
            for start in range(0, len(examples), self.batch_size):
                part = examples[start : start + self.batch_size]
                batch = collate(part, self.vocabulary.pad).to(model.device)
                student = Predictions(model, batch_states(model, batch)[batch.predictors])
                terms = Terms(CROSS_ENTROPY, Divergence(), batch.targets)
                teacher = self._teacher(part, batch)
                loss, kl = response_loss(terms, student, teacher, self.vocabulary.size)
                if self.bridge is not None:
                    kl = self._kl_along_spans(self.bridge, batch, student)
                loss_sum += loss.item()
                kl_sum += 0.0 if kl is None else kl.item()
                tokens += batch.response_tokens
        loss_sum, kl_sum, tokens = self.group.totals([loss_sum, kl_sum, tokens])
        tokens = max(1.0, tokens)
        untaught = self.teacher is None and self.bridge is None
        return loss_sum / tokens, None if untaught else kl_sum / tokens

    def _kl_along_spans(self, bridge: Bridge, batch: TokenBatch, student: Predictions) -> Tensor:
        batch, _, _ = bridge.teach(batch, range(len(batch.tokens)), self.batch_size)
        assert batch.teacher_states is not None
        teacher = Predictions(bridge.teacher, batch.teacher_states[batch.predictors])
        terms = Terms(DIVERGENCE, Divergence(), batch.targets)
        _, kl = span_loss(terms, student, teacher, Spans.of(batch), bridge, self.vocabulary.size)
        return kl

    def _teacher(self, part: Sequence[TokenExample], batch: TokenBatch) -> Predictions | None:
        if self.teacher is None:
            return None
        states: Tensor
        if self.kept is None:
            with evaluating(self.teacher):
                states = batch_states(self.teacher, batch)[batch.predictors]
        else:
            states = torch.cat([self.kept[example] for example in part])
        return Predictions(self.teacher, states.to(batch.tokens.device))
