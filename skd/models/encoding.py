"""From rows of text to ids and back, through the chat template, or as a source for an encoder.

The only place where a prompt is rendered and where a length budget is applied. Knows no
models and no methods.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from skd.data.record import ExampleRow
from skd.engine.sequences import TokenExample, Vocabulary
from skd.errors import UserError
from skd.models.pairs import end_of_turn
from skd.models.settings import Budget


@dataclass(frozen=True)
class Encoded:
    """`rows[i]` became `examples[i]`; rows over the budget were dropped and counted."""

    rows: list[ExampleRow]
    examples: list[TokenExample]
    dropped: int = 0  # prompts over the budget
    cut: int = 0  # responses over the budget, which lost their end


def encode(
    rows: Sequence[ExampleRow],
    template: str,
    tokenizer: PreTrainedTokenizerBase,
    budget: Budget,
    start: tuple[int, ...] = (),
    vocabulary: Vocabulary | None = None,
) -> Encoded:
    """Tokenise prompts and targets.

    Special tokens that stand in a text are read as such, as the chat template's own are.

    start: what an encoder–decoder's decoder begins with, behind each source; (): for a decoder.
    vocabulary: what the models share; None: no model will read the ids.

    Raises `UserError` for a prompt over `budget.max_prompt_tokens` under `too_long: error`, and
    for a token that a model lacks. A target over `max_new_tokens` is cut and then has no
    end-of-sequence token.
    """
    prompts = encode_prompts([row["source"] for row in rows], template, tokenizer, start)
    targets: list[list[int]] = tokenizer(
        text_target=[row["target"] for row in rows], add_special_tokens=False
    ).input_ids
    end = end_of_turn(tokenizer)
    kept: list[ExampleRow] = []
    examples = []
    cut = 0
    for row, prompt, target in zip(rows, prompts, targets, strict=True):
        fitted = _fit(row, prompt, template, tokenizer, budget, start)
        if fitted is None:
            continue
        response = (*target, end)
        if vocabulary is not None:
            require_known((*fitted, *response), vocabulary, tokenizer, f"row {row['id']!r}")
        cut += len(response) > budget.max_new_tokens
        kept.append(row)
        examples.append(TokenExample(tuple(fitted), response[: budget.max_new_tokens]))
    if rows and not kept:
        raise UserError(
            f"all {len(rows)} prompts are longer than max_prompt_tokens="
            f"{budget.max_prompt_tokens}; raise it under `budget` in params.yaml"
        )
    return Encoded(kept, examples, dropped=len(rows) - len(kept), cut=cut)


def decode(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> str:
    text: str = tokenizer.decode(ids, skip_special_tokens=True)
    return text.strip()


def require_known(
    ids: Sequence[int], vocabulary: Vocabulary, tokenizer: PreTrainedTokenizerBase, where: str
) -> None:
    """Raise `UserError` for the first token that a model has no embedding for.

    Gemma 3's text models lack the image token of their family's tokenizer. Written out in pieces
    it would be another text to each model that has it, so that it is refused.

    where: whose ids they are, for the message.
    """
    for i in ids:
        if i >= vocabulary.size:
            raise UserError(
                f"{where}: its text holds {tokenizer.convert_ids_to_tokens(i)!r}, a token that "
                "one of the models does not have; remove it from the text, or drop the row"
            )


def _fit(
    row: ExampleRow,
    prompt: list[int],
    template: str,
    tokenizer: PreTrainedTokenizerBase,
    budget: Budget,
    start: tuple[int, ...],
) -> list[int] | None:
    """The prompt within its budget, by `budget.too_long`; None: drop the row."""
    if len(prompt) <= budget.max_prompt_tokens:
        return prompt
    if budget.too_long == "error":
        raise UserError(
            f"row {row['id']!r}: its prompt has {len(prompt)} tokens, over max_prompt_tokens="
            f"{budget.max_prompt_tokens}; raise that under `budget` in params.yaml, or set "
            "too_long: drop or truncate there"
        )
    if budget.too_long == "drop":
        return None
    # The end of the SOURCE goes, never the end of the prompt: that is the generation header, or
    # what a decoder begins with.
    source = _tokenise([row["source"]], tokenizer)[0]
    over = len(prompt) - budget.max_prompt_tokens
    while over < len(source):
        text = tokenizer.decode(source[: len(source) - over])
        shorter = encode_prompts([text], template, tokenizer, start)[0]
        if len(shorter) <= budget.max_prompt_tokens:
            return shorter
        over += len(shorter) - budget.max_prompt_tokens
    raise UserError(f"row {row['id']!r}: the prompt's template alone is over max_prompt_tokens")


def encode_prompts(
    sources: Sequence[str],
    template: str,
    tokenizer: PreTrainedTokenizerBase,
    start: tuple[int, ...] = (),
) -> list[list[int]]:
    """The ids of each prompt, the header of the answer at its end; of any length."""
    turns = [template.replace("{source}", source) for source in sources]
    if start:
        return [[*ids, *start] for ids in _tokenise(turns, tokenizer, special=True)]
    if tokenizer.chat_template is None:
        return _tokenise([f"{turn}\n" for turn in turns], tokenizer, special=True)
    rendered = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": turn}], tokenize=False, add_generation_prompt=True
        )
        for turn in turns
    ]
    return _tokenise(rendered, tokenizer)


def _tokenise(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, special: bool = False
) -> list[list[int]]:
    # A template writes its own special tokens; adding them twice would start with two.
    ids: list[list[int]] = tokenizer(list(texts), add_special_tokens=special).input_ids
    return ids
