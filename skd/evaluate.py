"""Greedy generation and per-example records, and the validation that selects weights.

Evaluation is greedy for every model (paper, section 4). Knows text and tasks; trains
nothing and writes no files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from skd.encode import Encoded, decode
from skd.losses import Predictions, method_loss
from skd.methods import Method
from skd.metrics.score import score
from skd.sampling import evaluating, sample
from skd.sections import Divergence, Sampling
from skd.sequences import Vocabulary, collate
from skd.states import batch_states
from skd.tasks import TASKS
from skd.teacher_cache import KeptStates

GREEDY = Sampling(temperature=0.0)
_MEASURE = Method("ground_truth", cross_entropy=1.0)


@dataclass(frozen=True)
class Generated:
    responses: list[list[int]]  # ids, the end-of-sequence token included
    stopped: list[bool]


def generate(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    vocabulary: Vocabulary,
    max_new_tokens: int,
    batch_size: int,
    sampling: Sampling = GREEDY,
    noise: torch.Tensor | None = None,
) -> Generated:
    """One response per prompt, in order. `noise` [3, B, max_new_tokens] unless greedy."""
    # Like lengths side by side: little padding, and rows that finish together.
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    responses: list[list[int]] = [[] for _ in prompts]
    stopped = [False] * len(prompts)
    if noise is None:
        noise = torch.zeros(3, len(prompts), max_new_tokens, dtype=torch.float64)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        rollout = sample(
            model,
            [prompts[i] for i in rows],
            vocabulary,
            sampling,
            max_new_tokens,
            noise[:, rows],
        )
        batch = rollout.batch.to(torch.device("cpu"))
        for j, i in enumerate(rows):
            span = slice(int(batch.prompt_lengths[j]), int(batch.lengths[j]))
            responses[i] = batch.tokens[j, span].tolist()
            stopped[i] = bool(rollout.stopped[j])
    return Generated(responses, stopped)


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


def records(
    model_name: str,
    seed: int | None,
    encoded: Encoded,
    generated: Generated,
    outputs: list[str],
    per_example: dict[str, list[float]],
) -> list[dict[str, Any]]:
    """One JSON row per test example."""
    return [
        {
            "model": model_name,
            "seed": seed,
            "id": row["id"],
            "output": outputs[i],
            "stopped": generated.stopped[i],
            "tokens": len(generated.responses[i]),
            "scores": {name: round(values[i], 4) for name, values in per_example.items()},
        }
        for i, row in enumerate(encoded.rows)
    ]
