"""The validation that selects weights: the task's metric, the loss and the distance to the teacher.

Decoding is greedy (paper, section 4). Trains nothing and writes no files.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from skd.engine.generation import generate
from skd.engine.sampling import evaluating
from skd.engine.sequences import Vocabulary, collate
from skd.engine.states import batch_states
from skd.metrics.score import score
from skd.models.encoding import Encoded, decode
from skd.tasks import TASKS
from skd.training.losses import Predictions, method_loss
from skd.training.methods import Method
from skd.training.settings import Divergence
from skd.training.teacher_cache import KeptStates

_MEASURE = Method("ground_truth", cross_entropy=1.0)


def validator(
    task: str,
    encoded: Encoded,
    tokenizer: PreTrainedTokenizerBase,
    vocabulary: Vocabulary,
    max_new_tokens: int,
    batch_size: int,
    teacher: PreTrainedModel | None,
    kept: KeptStates | None = None,
) -> Callable[[PreTrainedModel], dict[str, float]]:
    """-> loss (nats per token), kl to the teacher on ground truth, and the task's metric."""
    primary = TASKS[task].primary
    examples = encoded.examples

    def validate(model: PreTrainedModel) -> dict[str, float]:
        generated = generate(
            model, [e.prompt for e in examples], vocabulary, max_new_tokens, batch_size
        )
        outputs = [decode(ids, tokenizer) for ids in generated.responses]
        scores = score(task, encoded.rows, outputs, generated.stopped, only={primary})
        numbers = {"metric": scores.system[primary]}
        return numbers | _likelihood(model, teacher, encoded, vocabulary, batch_size, kept)

    return validate


@torch.no_grad()
def _likelihood(
    model: PreTrainedModel,
    teacher: PreTrainedModel | None,
    encoded: Encoded,
    vocabulary: Vocabulary,
    batch_size: int,
    kept: KeptStates | None,
) -> dict[str, float]:
    loss = kl = 0.0
    tokens = 0
    with evaluating(model):
        for start in range(0, len(encoded.examples), batch_size):
            part = encoded.examples[start : start + batch_size]
            batch = collate(part, vocabulary.pad).to(model.device)
            student = Predictions(model, batch_states(model, batch)[batch.predictors])
            other = None
            if teacher is not None:
                if kept is None:
                    states = batch_states(teacher, batch)[batch.predictors]
                else:
                    states = torch.cat([kept[example] for example in part]).to(model.device)
                other = Predictions(teacher, states)
            total, kl_sum = method_loss(
                _MEASURE,
                Divergence(),
                student,
                other,
                batch.targets,
                None,
                vocabulary.size,
            )
            loss += total.item()
            kl += 0.0 if kl_sum is None else kl_sum.item()
            tokens += batch.response_tokens
    numbers = {"loss": loss / max(1, tokens)}
    return numbers if teacher is None else numbers | {"kl": kl / max(1, tokens)}
