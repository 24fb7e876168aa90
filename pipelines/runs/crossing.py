"""A run whose teacher and student have different tokenizers: what stands between the two.

Knows text, to carry it from one tokenizer to the other. Refuses to know stages and how a run
trains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from pipelines.runs.inputs import TaskData
from skd.engine.pair import Pair
from skd.engine.sequences import TokenExample, Vocabulary
from skd.engine.sources import decoder_start
from skd.models.alignment import Translator, shared_classes
from skd.models.encoding import Encoded, encode
from skd.models.loading import load_tokenizer
from skd.models.pairs import common_vocabulary, share_ids
from skd.models.settings import Budget
from skd.training.cross_tokenizer import Bridge


@dataclass(frozen=True)
class Crossing:
    """The rows of a run as both models read them, and the way from one to the other."""

    # In the student's ids: the rows whose prompts are within both models' budgets
    encoded: Encoded
    held_out: Encoded
    # `encoded` in the teacher's ids
    asked: list[TokenExample]
    translator: Translator
    bridge: Bridge

    def to_student(self, made: Sequence[TokenExample], max_new_tokens: int) -> list[TokenExample]:
        """The teacher's own responses to `asked`, in the student's ids."""
        pairs = zip(self.encoded.examples, made, strict=True)
        return [
            TokenExample(own.prompt, self.translator.to_student(other.response, max_new_tokens))
            for own, other in pairs
        ]


def other_tokenizer(
    teacher_folder: Path | None, tokenizer: PreTrainedTokenizerBase
) -> PreTrainedTokenizerBase | None:
    """The teacher's tokenizer where its ids are not the student's; None: one serves both.

    The stage `base` lets such a pair through where `models.cross_tokenizer` asks for it.
    """
    if teacher_folder is None:
        return None
    own = load_tokenizer(teacher_folder)
    return None if share_ids(own, tokenizer) else own


def cross(
    pair: Pair,
    tokenizer: PreTrainedTokenizerBase,
    teacher_tokenizer: PreTrainedTokenizerBase,
    task: TaskData,
    encoded: Encoded,
    held_out: Encoded,
) -> Crossing:
    """What a run needs to distil across two tokenizers.

    Args:
        encoded, held_out: training and validation rows in the student's ids.
    """
    assert pair.teacher is not None
    vocabulary = common_vocabulary(teacher_tokenizer, pair.teacher)
    start = decoder_start(pair.teacher)
    reading = (task.prompt, teacher_tokenizer, task.budget, start, vocabulary)
    both = [_both_read(rows, *reading) for rows in (encoded, held_out)]
    translator = Translator(
        tokenizer,
        teacher_tokenizer,
        pair.vocabulary.eos,
        vocabulary.eos,
        prompts={
            own.prompt: other.prompt
            for rows, read in both
            for own, other in zip(rows.examples, read, strict=True)
        },
    )
    classes = shared_classes(tokenizer, pair.vocabulary, teacher_tokenizer, vocabulary)
    bridge = Bridge(
        pair.teacher, vocabulary, classes.to(pair.teacher.device), translator.to_teacher
    )
    (encoded, asked), (held_out, _) = both
    return Crossing(encoded, held_out, asked, translator, bridge)


def _both_read(
    encoded: Encoded,
    template: str,
    teacher_tokenizer: PreTrainedTokenizerBase,
    budget: Budget,
    start: tuple[int, ...],
    vocabulary: Vocabulary,
) -> tuple[Encoded, list[TokenExample]]:
    """The rows whose prompts are within the teacher's budget too, in both models' ids."""
    read = encode(encoded.rows, template, teacher_tokenizer, budget, start, vocabulary)
    kept = {row["id"] for row in read.rows}
    pairs = zip(encoded.rows, encoded.examples, strict=True)
    examples = [example for row, example in pairs if row["id"] in kept]
    dropped = encoded.dropped + read.dropped
    return replace(encoded, rows=read.rows, examples=examples, dropped=dropped), read.examples
