"""Encoder–decoders from their folders: sources and targets as ids, codes of languages, pairs."""

from __future__ import annotations

import json

import pytest
import torch

from pipelines.runs import testing
from pipelines.runs.inputs import TaskData
from pipelines.runs.jobs import finish
from pipelines.runs.placing import check_fit, materialise
from pipelines.runs.training import MODEL, RunSpec, save_model
from pipelines.settings.evaluate import Evaluate
from skd.data.record import ExampleRow
from skd.engine.checking import check_decoder
from skd.engine.sources import decoder_start
from skd.errors import UserError
from skd.models.encoding import decode, encode
from skd.models.loading import load_model, load_tokenizer
from skd.models.pairs import common_vocabulary, first_of_targets
from skd.models.procedural import procedural_model
from skd.models.settings import Budget, FolderModel, Languages, LayersModel, Models, ProceduralModel
from skd.training.methods import METHODS
from skd.training.settings import Distill, MethodSettings, Optimisation
from tests.folders import (
    CODES,
    marian_tokenizer,
    nllb_tokenizer,
    plain_tokenizer,
    put,
    refer,
)
from tests.tiny import machine_in

ROWS = [ExampleRow(id="train-0", source="one two", target="eins zwei")]
BUDGET = Budget(40, 20)


# ------------------------------------------------------------------- ids
def test_a_source_ends_with_its_end_and_the_decoders_start_stands_behind_it() -> None:
    tokenizer = plain_tokenizer()
    (example,) = encode(ROWS, "translate: {source}", tokenizer, BUDGET, start=(1,)).examples
    assert example.prompt == (*tokenizer("translate: one two").input_ids, 1)
    assert example.prompt[-2] == tokenizer.eos_token_id
    assert decode(example.response, tokenizer) == "eins zwei"
    assert example.response[-1] == tokenizer.eos_token_id
    assert example.response.count(tokenizer.eos_token_id) == 1


@pytest.mark.parametrize(
    ("ending", "first"), [("$A </s>", ()), ("<s> $A </s>", (0,)), ("$A </s> <s>", ())]
)
def test_special_tokens_before_a_target_are_read_and_not_written(ending, first) -> None:
    """T5 and Marian, BART, mBART."""
    tokenizer = plain_tokenizer(ending)
    assert first_of_targets(tokenizer) == first
    (example,) = encode(ROWS, "{source}", tokenizer, BUDGET, start=(2, *first)).examples
    assert not {0, *tokenizer.all_special_ids} & set(example.response[:-1])


def test_codes_of_languages_open_source_and_decoder_and_are_never_sampled(tmp_path) -> None:
    there = put(tmp_path / "there", "m2m100", nllb_tokenizer(tmp_path))
    model, tokenizer = load_model(refer(tmp_path / "m", there)), load_tokenizer(tmp_path / "m")
    source, target = tokenizer.convert_tokens_to_ids(CODES)
    start = decoder_start(model)
    assert start == (tokenizer.eos_token_id, target)
    (example,) = encode(ROWS, "{source}", tokenizer, BUDGET, start).examples
    assert example.prompt[0] == source
    assert example.prompt[-3:] == (tokenizer.eos_token_id, *start)
    assert not {source, target} & set(example.response)
    assert {source, target} <= set(common_vocabulary(tokenizer, model).forbidden)


def test_a_saved_model_keeps_its_languages(tmp_path) -> None:
    """Its folder alone says what the library's own `generate` is to begin with."""
    there = put(tmp_path / "there", "m2m100", nllb_tokenizer(tmp_path))
    refer(tmp_path / "m", there)
    save_model(load_model(tmp_path / "m"), load_tokenizer(tmp_path / "m"), tmp_path / "saved")
    model, tokenizer = load_model(tmp_path / "saved"), load_tokenizer(tmp_path / "saved")
    assert (tokenizer.src_lang, tokenizer.tgt_lang) == tuple(CODES)
    assert model.generation_config.forced_bos_token_id == tokenizer.convert_tokens_to_ids(CODES[1])


@pytest.mark.parametrize("languages", [Languages("as", "eng_Latn"), Languages("asm_Beng", "en")])
def test_a_code_that_the_tokenizer_lacks_is_named(languages, tmp_path) -> None:
    there = put(tmp_path / "there", "m2m100", nllb_tokenizer(tmp_path))
    with pytest.raises(UserError, match=r"models\.languages"):
        load_tokenizer(refer(tmp_path / "m", there, languages))


def test_codes_for_a_tokenizer_without_any_are_refused(tmp_path) -> None:
    there = put(tmp_path / "there", "t5", plain_tokenizer())
    with pytest.raises(UserError, match=r"models\.languages"):
        load_tokenizer(refer(tmp_path / "m", there))


def test_codes_are_asked_for_where_a_tokenizer_has_them(tmp_path) -> None:
    there = put(tmp_path / "there", "m2m100", nllb_tokenizer(tmp_path))
    with pytest.raises(UserError, match=r"no target language.*models\.languages"):
        load_tokenizer(there)


def test_a_long_source_loses_its_end_and_keeps_what_the_decoder_begins_with() -> None:
    tokenizer = plain_tokenizer()
    rows = [ExampleRow(id="train-0", source="one two three " * 20, target="eins")]
    budget = Budget(16, 20, too_long="truncate")
    (example,) = encode(rows, "{source}", tokenizer, budget, start=(2, 0)).examples
    assert len(example.prompt) <= 16
    assert example.prompt[-3:] == (tokenizer.eos_token_id, 2, 0)


# sacremoses cleans punctuation where it is installed; the library recommends it each time
@pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")
def test_source_and_target_are_cut_by_their_own_sides_of_a_marian_tokenizer(tmp_path) -> None:
    there = put(tmp_path / "there", "marian", marian_tokenizer(tmp_path))
    tokenizer = load_tokenizer(there)
    start = decoder_start(load_model(there))
    (example,) = encode(ROWS, "{source}", tokenizer, BUDGET, start).examples
    source = tokenizer.spm_source.encode("one two", out_type=str)
    target = tokenizer.spm_target.encode("eins zwei", out_type=str)
    ids = tokenizer.get_vocab()
    assert example.prompt == (*(ids[piece] for piece in source), tokenizer.eos_token_id, *start)
    assert example.response == (*(ids[piece] for piece in target), tokenizer.eos_token_id)
    assert tokenizer.unk_token_id not in {*example.prompt, *example.response}
    assert decode(example.response, tokenizer) == "eins zwei"


@pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")
def test_a_vocabulary_for_each_side_is_refused(tmp_path) -> None:
    there = put(tmp_path / "there", "marian", marian_tokenizer(tmp_path, separate=True))
    for load in (load_tokenizer, load_model):
        with pytest.raises(UserError, match=r"a vocabulary each.*separate_vocabs: false"):
            load(there)


def test_a_decoder_with_rows_of_its_own_is_refused(tmp_path) -> None:
    there = put(tmp_path / "there", "marian", plain_tokenizer())
    config = json.loads((there / "config.json").read_text())
    own = {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 40}
    (there / "config.json").write_text(json.dumps(config | own))
    with pytest.raises(UserError, match="a vocabulary each"):
        load_model(there)


# ------------------------------------------------------------------- pairs
def test_a_pair_of_two_kinds_is_refused(tmp_path) -> None:
    tokenizer = plain_tokenizer()
    decoder = ProceduralModel("procedural", hidden_size=16, layers=1, heads=2, steps=0)
    save_model(procedural_model(decoder, tokenizer), tokenizer, tmp_path / "decoder")
    both = put(tmp_path / "both", "t5", tokenizer)
    with pytest.raises(UserError, match="teacher is an encoder–decoder and the student a decoder"):
        check_fit(both, tmp_path / "decoder", "error")
    with pytest.raises(UserError, match="teacher is a decoder and the student an encoder–decoder"):
        check_fit(tmp_path / "decoder", both, "error")


def test_decoders_that_begin_unlike_are_refused(tmp_path) -> None:
    tokenizer = plain_tokenizer()
    teacher = put(tmp_path / "teacher", "t5", tokenizer)
    student = put(tmp_path / "student", "bart", tokenizer)
    with pytest.raises(UserError, match="decoder_start_token_id"):
        check_fit(teacher, student, "error")


def test_families_may_differ_where_ids_and_starts_agree(tmp_path) -> None:
    tokenizer = plain_tokenizer()
    pair = [put(tmp_path / family, family, tokenizer) for family in ("t5", "marian")]
    check_fit(*pair, "error")


def test_a_student_of_an_encoder_decoders_layers_is_refused(tmp_path) -> None:
    teacher = put(tmp_path / "t", "t5", plain_tokenizer())
    models = Models(FolderModel("folder", str(teacher)), LayersModel("layers", [0]))
    machine = machine_in(tmp_path)
    with pytest.raises(UserError, match=r"models\.student: layers are kept of decoders alone"):
        materialise(tmp_path / "s", "models.student", models.student, models, teacher, [], machine)


# ------------------------------------------------------------------- runs
@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_a_student_that_is_tested_from_its_folder(method, tmp_path) -> None:
    there = [
        put(tmp_path / name, "m2m100", nllb_tokenizer(tmp_path), seed)
        for seed, name in enumerate(("teacher-there", "student-there"))
    ]
    teacher, student = (
        refer(tmp_path / name, to) for name, to in zip(("teacher", "student"), there, strict=True)
    )
    rows = [
        ExampleRow(id=f"{i}", source=f"one {i}", target="eins", references=["eins"])
        for i in range(6)
    ]
    task = TaskData("toy", "translation", "{source}", Budget(30, 6), rows, rows[:2])
    optimisation = Optimisation(
        steps=4, batch_size=2, learning_rate=0.01, validate_every=2, checkpoint_every=2
    )
    spec = RunSpec(
        name=f"toy-{method}",
        task=task,
        settings=MethodSettings(method),
        distill=Distill(optimisation),
        seed=1,
        start_folder=student,
        teacher_folder=None if method == "sft" else teacher,
    )
    machine = machine_in(tmp_path)
    run = finish(spec, machine)
    assert run.result.steps == 4
    model, start = load_model(run.folder / MODEL), load_model(student)
    changed = [
        name
        for (name, a), b in zip(model.named_parameters(), start.parameters(), strict=True)
        if not torch.equal(a, b)
    ]
    assert any("encoder" in name for name in changed)
    assert decoder_start(model) == decoder_start(start)
    split = testing.TestSplit("toy", "translation", "{source}", Budget(30, 6), rows)
    job = testing.Testing(method, 1, run.folder / MODEL, split, Evaluate(batch_size=4), "cpu")
    assert len(finish(job, machine).result.records) == len(rows)


@pytest.mark.parametrize(
    ("saved", "checked"),
    [
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.bfloat16),
        (torch.float16, torch.bfloat16),  # T5 overflows in fp16
    ],
)
def test_a_pair_is_checked_in_the_format_of_its_files(saved, checked, tmp_path, monkeypatch):
    """A teacher of 8B in bf16 is 16 GB on the host then, and not 32."""
    tokenizer = plain_tokenizer()
    for name in ("teacher", "student"):
        load_model(put(tmp_path / name, "t5", tokenizer)).to(saved).save_pretrained(tmp_path / name)
    seen = []

    def check(model):
        seen.append(model.dtype)
        check_decoder(model)

    monkeypatch.setattr("pipelines.runs.placing.check_decoder", check)
    check_fit(tmp_path / "teacher", tmp_path / "student", "error")
    assert seen == [checked, checked]
