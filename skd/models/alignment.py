"""Two tokenizers over one text: where tokens of both end, and which tokens mean the same text.

Spans are by characters of the decoded text, as in the later form of TRL's GOLD trainer
(huggingface/trl#5885): no comparison of buffers that one odd token throws out of step. Knows no
models and no losses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from skd.engine.sequences import TokenExample, Vocabulary
from skd.engine.spans import Classes, Translation, common_ends
from skd.errors import UserError
from skd.models.encoding import decode
from skd.models.pairs import end_of_turn

# A response that spells a special token is text: no model can emit one but its ends
_PLAIN = {"add_special_tokens": False, "split_special_tokens": True}
_CUT = "\ufffd"  # what decoding gives for a part of a character
# Names that no text is: of all ends, and the beginning of those of parts of characters
_END, _PART = f"{_CUT}end", _CUT


@dataclass(frozen=True)
class Translator:
    """Carries responses from one tokenizer to the other. Prompts are each model's own.

    Raises `UserError` when a tokenizer cannot say where its tokens stand in a text.
    """

    student: PreTrainedTokenizerBase
    teacher: PreTrainedTokenizerBase
    # The ids that end a response of the student, and one of the teacher
    student_eos: tuple[int, ...]
    teacher_eos: tuple[int, ...]
    # A prompt as the student reads it -> as the teacher does
    prompts: Mapping[tuple[int, ...], tuple[int, ...]]

    def __post_init__(self) -> None:
        if not self.teacher.is_fast:
            raise UserError(
                f"the teacher's tokenizer, a {type(self.teacher).__name__}, does not say where its "
                "tokens stand in a text, which models.cross_tokenizer needs; take a model with a "
                "tokenizer.json"
            )

    def to_teacher(self, example: TokenExample) -> Translation:
        """A row as the teacher reads it, with the spans that both tokenizers cut out."""
        content, ended = _without_end(example.response, self.student_eos)
        pieces = texts_of(content, self.student, whole=ended)
        ids, places = _encoded("".join(pieces), self.teacher)
        ours, theirs = common_ends(_places(pieces), places)
        if ended:
            ids = [*ids, end_of_turn(self.teacher)]
            ours, theirs = (*ours, len(example.response)), (*theirs, len(ids))
        read = TokenExample(self.prompts[example.prompt], tuple(ids))
        return Translation(read, ours, theirs)

    def to_student(self, response: Sequence[int], max_new_tokens: int) -> tuple[int, ...]:
        """A response of the teacher in the student's ids. One that was cut gets no end."""
        content, ended = _without_end(response, self.teacher_eos)
        text = decode(content, self.teacher)
        ids: list[int] = self.student(text_target=text, **_PLAIN).input_ids
        if ended:
            ids.append(end_of_turn(self.student))
        return tuple(ids[:max_new_tokens])


def texts_of(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase, whole: bool) -> list[str]:
    """The text that each token adds; "" where it begins a character that a later one completes.

    A token is decoded behind the ones before it, since some decoders leave out a first space.

    Args:
        whole: whether the ids are a whole response: what is left of a character at the end then
            stands as it decodes. Otherwise it is left out.
    """
    texts: list[str] = []
    begin = known = 0  # the token that decoding begins at; tokens whose text is known
    for end in range(1, len(ids) + 1):
        before, grown = (_decoded(ids[begin:stop], tokenizer) for stop in (known, end))
        added = grown[len(before) :]
        complete = bool(added) and not added.endswith(_CUT)
        texts.append(added if complete or (whole and end == len(ids)) else "")
        if complete:
            begin, known = known, end
    return texts


def shared_classes(
    student: PreTrainedTokenizerBase,
    student_vocabulary: Vocabulary,
    teacher: PreTrainedTokenizerBase,
    teacher_vocabulary: Vocabulary,
) -> Classes:
    """A class for every text that is one token in both vocabularies, and one for the ends.

    A token that only one of them has is of the class of the longest such text that it begins with;
    of none where there is no such text.
    """
    ours = _names(student, student_vocabulary)
    theirs = _names(teacher, teacher_vocabulary)
    shared = {name: place for place, name in enumerate(sorted(set(ours) & set(theirs)))}
    return Classes(_classes(ours, shared), _classes(theirs, shared), len(shared))


def _names(tokenizer: PreTrainedTokenizerBase, vocabulary: Vocabulary) -> list[str]:
    """What each id means: its text behind other text; of a part of a character its own symbol."""
    (anchor, *_) = tokenizer("a", add_special_tokens=False).input_ids
    before = _decoded([anchor], tokenizer)
    decoded = tokenizer.batch_decode(
        [[anchor, i] for i in range(vocabulary.size)],
        skip_special_tokens=False,
        clean_up_tokenization_spaces=False,
    )
    symbols = tokenizer.convert_ids_to_tokens(list(range(vocabulary.size)))
    names = []
    for i, (text, symbol) in enumerate(zip(decoded, symbols, strict=True)):
        added = text[len(before) :]
        if i in vocabulary.eos:
            names.append(_END)
        else:
            names.append(f"{_PART}{symbol}" if not added or _CUT in added else added)
    return names


def _classes(names: Iterable[str], shared: Mapping[str, int]) -> Tensor:
    none = len(shared)
    beginnings = ((name[:size] for size in range(len(name), 0, -1)) for name in names)
    return torch.tensor(
        [next((shared[text] for text in texts if text in shared), none) for texts in beginnings]
    )


def _places(pieces: Sequence[str]) -> list[int]:
    """Where in the text each piece ends; -1 for those that add nothing."""
    places, end = [], 0
    for piece in pieces:
        end += len(piece)
        places.append(end if piece else -1)
    return places


def _encoded(text: str, tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """A text's ids, and where in it each of them ends; -1: within a character."""
    read = tokenizer(text_target=text, return_offsets_mapping=True, **_PLAIN)
    if not read.input_ids:
        return [], []
    begins, ends = zip(*read.offset_mapping, strict=True)
    following = (*begins[1:], len(text))
    places = [end if then >= end else -1 for end, then in zip(ends, following, strict=True)]
    return read.input_ids, [*places[:-1], len(text)]


def _without_end(response: Sequence[int], eos: tuple[int, ...]) -> tuple[Sequence[int], bool]:
    ended = bool(response) and response[-1] in eos
    return (response[:-1], True) if ended else (response, False)


def _decoded(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> str:
    text: str = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text
