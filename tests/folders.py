"""Model folders of encoder–decoders, each with a tokenizer of its family's kind, trained here."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path

import torch
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors, trainers
from tokenizers import models as tokenizer_models
from transformers import (
    MarianTokenizer,
    NllbTokenizerFast,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from pipelines.runs.training import save_model
from skd.models.folders import ModelReference, write_reference
from skd.models.settings import Languages
from tests.tiny import build

TEXTS = ["translate: one two three", "eins zwei drei vier fünf"] * 20
MARKS = ["<s>", "<pad>", "</s>", "<unk>"]
NAMED = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}

CODES = ["asm_Beng", "eng_Latn"]
AS_TO_EN = Languages(*CODES)


def core(ending: str) -> Tokenizer:
    """Byte-level BPE; `ending` is what stands around a text, as `</s>` for T5's."""
    made = Tokenizer(tokenizer_models.BPE(unk_token=NAMED["unk_token"]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(False)
    made.decoder = decoders.ByteLevel()
    made.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=300, special_tokens=MARKS))
    marks = [(mark, made.token_to_id(mark)) for mark in MARKS]
    made.post_processor = processors.TemplateProcessing(single=ending, special_tokens=marks)
    return made


def plain_tokenizer(ending: str = "$A </s>") -> PreTrainedTokenizerBase:
    return PreTrainedTokenizerFast(tokenizer_object=core(ending), **NAMED)


def nllb_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """NLLB's own class over a small vocabulary; it adds its two hundred codes of languages."""
    path = folder / "core.json"
    core("$A </s>").save(str(path))
    return NllbTokenizerFast(tokenizer_file=str(path))


def pieces(path: Path, texts: list[str]) -> list[str]:
    """Train one side's own SentencePiece model; gives its pieces."""
    made = BytesIO()
    SentencePieceTrainer.Train(
        sentence_iterator=iter(texts),
        model_writer=made,
        vocab_size=24,
        model_type="char",
        hard_vocab_limit=False,
        minloglevel=2,
    )
    path.write_bytes(made.getvalue())
    model = SentencePieceProcessor(model_file=str(path))
    return [model.IdToPiece(i) for i in range(3, model.GetPieceSize())]


def marian_tokenizer(folder: Path, separate: bool = False) -> PreTrainedTokenizerBase:
    """Marian's own class: a SentencePiece model a side, and the ids of both in one file or two."""
    sides = {
        "source": pieces(folder / "source.spm", TEXTS[::2]),
        "target": pieces(folder / "target.spm", TEXTS[1::2]),
    }
    marks = ["</s>", "<unk>", "<pad>"]
    both = {"vocab": sorted({*sides["source"], *sides["target"]})}
    if separate:
        both = {"vocab": sides["source"], "target_vocab_file": sides["target"]}
    files = {}
    for name, own in both.items():
        files[name] = str(folder / f"{name}.json")
        ids = {piece: i for i, piece in enumerate([*marks, *own])}
        Path(files[name]).write_text(json.dumps(ids))
    spm = {f"{side}_spm": str(folder / f"{side}.spm") for side in sides}
    return MarianTokenizer(**spm, **files, separate_vocabs=separate)


def put(folder: Path, family: str, tokenizer: PreTrainedTokenizerBase, seed: int = 1) -> Path:
    """A model folder of a family, in fp32, for this tokenizer."""
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    starts = {"t5": tokenizer.pad_token_id, "marian": tokenizer.pad_token_id}
    model = build(
        family,
        seed=seed,
        dtype=torch.float32,
        vocab_size=len(tokenizer) + 3,
        decoder_start_token_id=starts.get(family, tokenizer.eos_token_id),
        forced_bos_token_id=None,
        **ids,
    )
    save_model(model, tokenizer, folder)
    return folder


def refer(folder: Path, to: Path, languages: Languages = AS_TO_EN) -> Path:
    write_reference(folder, ModelReference(path=str(to), languages=languages))
    return folder
