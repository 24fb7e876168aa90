"""What a teacher and a student must share: ids, ends of turns, templates.

Knows no files and no tasks.
"""

from __future__ import annotations

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from skd.engine.sequences import Vocabulary
from skd.errors import UserError

_MARK = "⁂"  # an answer that no template holds itself


def share_ids(teacher: PreTrainedTokenizerBase, student: PreTrainedTokenizerBase) -> bool:
    """Whether an id is the same token to both."""
    return bool(teacher.get_vocab() == student.get_vocab())


def check_pair(
    teacher: PreTrainedTokenizerBase, student: PreTrainedTokenizerBase, template_mismatch: str
) -> None:
    """Refuse a pair whose ids differ, before any compute. Raises `UserError` with the first one."""
    if not share_ids(teacher, student):
        ids, others = teacher.get_vocab(), student.get_vocab()
        first = min(i for _, i in ids.items() ^ others.items())
        raise UserError(
            f"teacher and student have different tokenizers: id {first} is "
            f"{_tokens(ids, first)} for the teacher and {_tokens(others, first)} for the "
            "student; choose a pair that shares its tokenizer, or set models.cross_tokenizer: uld "
            "for methods without interleaved sampling (docs/own-models.md)"
        )
    for name in ("eos_token_id", "pad_token_id"):
        if getattr(teacher, name) != getattr(student, name):
            raise UserError(
                f"teacher and student differ in {name}: {getattr(teacher, name)} and "
                f"{getattr(student, name)}; make the tokenizers agree"
            )
    if teacher.chat_template != student.chat_template and template_mismatch == "error":
        raise UserError(
            "teacher and student have different chat templates, so the student would answer "
            "prompts it has not seen; set models.template_mismatch: teacher to use the teacher's"
        )


def check_kinds(teacher_encodes: bool, student_encodes: bool) -> None:
    """Refuse a pair of an encoder–decoder and a decoder. Raises `UserError`."""
    if teacher_encodes != student_encodes:
        kinds = {True: "an encoder–decoder", False: "a decoder"}
        raise UserError(
            f"the teacher is {kinds[teacher_encodes]} and the student {kinds[student_encodes]}: "
            "one encodes a prompt, the other goes on writing it, so that "
            "no prefix means the same to both; choose two of one kind"
        )


def check_starts(teacher: tuple[int, ...], student: tuple[int, ...]) -> None:
    """Refuse encoder–decoders whose decoders begin unlike. Raises `UserError`."""
    if teacher != student:
        raise UserError(
            f"the teacher's decoder begins with the ids {teacher}, the student's with {student}; "
            "make decoder_start_token_id in their config.json agree, and set models.languages "
            "where their tokenizers have codes of languages"
        )


def common_vocabulary(tokenizer: PreTrainedTokenizerBase, *models: PreTrainedModel) -> Vocabulary:
    """The ids that all these models share; rows of a padded embedding are left out.

    So are special tokens behind a model's rows, which it cannot emit: Gemma 3's text models have
    none for the image token of their family's tokenizer.

    Raises `UserError` for a model with too few rows, and for an end that is no token.
    """
    ids = set(tokenizer.get_vocab().values())
    rows = min(model.get_output_embeddings().weight.shape[0] for model in models)
    special = special_ids(tokenizer)
    if lacking := {i for i in ids if i >= rows} - special:
        raise UserError(
            f"a model has {rows} output rows for a tokenizer of {max(ids) + 1} ids, so that it "
            f"has none for {tokenizer.convert_ids_to_tokens(min(lacking))!r}; take the tokenizer "
            "that belongs to it"
        )
    ids = {i for i in ids if i < rows}
    size = max(ids) + 1
    eos: set[int | None] = {end_of_turn(tokenizer), tokenizer.eos_token_id}
    for model in models:
        configured = getattr(model.generation_config, "eos_token_id", None)
        eos |= set(configured if isinstance(configured, list) else [configured])
    known = sorted(i for i in eos if i is not None)
    if strange := [i for i in known if i not in ids]:
        raise UserError(
            f"the end-of-sequence id {strange[0]} is none of the tokenizer's that the models have, "
            "so that no response could end with it; correct eos_token_id in the model's "
            "generation_config.json"
        )
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id in ids else known[0]
    holes = set(range(size)) - ids
    forbidden = sorted((special | holes | {pad}) & set(range(size)) - set(known))
    return Vocabulary(size=size, eos=tuple(known), pad=pad, forbidden=tuple(forbidden))


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id with which the chat template ends an answer; the tokenizer's eos without one.

    Gemma's turns end with `<end_of_turn>`, its `eos_token` is another.
    """
    if tokenizer.chat_template is not None:
        turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": _MARK}]
        text = tokenizer.apply_chat_template(turns, tokenize=False)
        tail = tokenizer(text.rpartition(_MARK)[2], add_special_tokens=False).input_ids
        if tail and tail[0] in special_ids(tokenizer):
            return int(tail[0])
    if tokenizer.eos_token_id is None:
        raise UserError("the tokenizer has no end-of-sequence token")
    return int(tokenizer.eos_token_id)


def special_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Those of the tokenizer's named tokens (eos, pad, …), and of all others that are special.

    Phi-3's `<|end|>` and Llama 3's marks of a turn have no name.
    """
    added = tokenizer.added_tokens_decoder
    return {*tokenizer.all_special_ids, *(i for i, token in added.items() if token.special)}


def first_of_targets(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The special ids that stand before a target's own: NLLB's code of its language, BART's bos.

    An encoder–decoder's decoder reads them from the start, and samples none of them.
    """
    ids: list[int] = tokenizer(text_target="").input_ids
    return tuple(ids[: ids.index(tokenizer.eos_token_id)] if tokenizer.eos_token_id in ids else ids)


def _tokens(ids: dict[str, int], wanted: int) -> str:
    """What has this id; a broken tokenizer has two tokens with one."""
    return " and ".join(repr(token) for token, i in ids.items() if i == wanted) or "None"
