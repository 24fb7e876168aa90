"""Answers on the command line: what is said, as it is said, and what it took."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipelines.runs.training import save_model
from skd import generate
from skd.engine.generation import generate as plain_generate
from skd.engine.sources import decoder_start
from skd.errors import UserError
from skd.generate import answer, main, speaker
from skd.models.encoding import encode_prompts
from skd.models.procedural import procedural_model, train_tokenizer
from skd.models.settings import ProceduralModel
from tests.conftest import ROOT
from tests.folders import nllb_tokenizer, plain_tokenizer, put, refer

CPU = torch.device("cpu")
PROMPT = "what is 12 + 3?"


def make_model(folder: Path, seed: int, text: str = "what is 12 + 3? it is 15") -> Path:
    tokenizer = train_tokenizer([text] * 20, 300)
    shape = ProceduralModel("procedural", hidden_size=16, layers=2, heads=2, steps=0, seed=seed)
    model = procedural_model(shape, tokenizer)
    with torch.no_grad():  # peaked, so that answers differ from token to token
        for weight in model.parameters():
            weight.mul_(4)
    save_model(model, tokenizer, folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("models")
    return make_model(root / "teacher", 1), make_model(root / "student", 2)


def test_an_answer_is_the_greedy_one_of_the_prompt_in_its_template(folders, capsys) -> None:
    main([str(folders[0]), PROMPT, "--max-tokens", "12", "--device", "cpu"])
    ready = speaker(folders[0], None, CPU)
    ids = encode_prompts([PROMPT], "{source}", ready.tokenizer)
    assert ids[0][0] == ready.tokenizer.convert_tokens_to_ids("<|user|>")
    wanted = plain_generate(ready.model, ids, ready.vocabulary, 12, 1).responses[0]
    said = capsys.readouterr()
    assert said.out == ready.tokenizer.decode(wanted, skip_special_tokens=True) + "\n"
    assert said.err.startswith(f"{len(wanted)} tokens in ")
    assert "drafted" not in said.err


def test_a_draft_changes_no_word_and_its_worth_is_told(folders, capsys) -> None:
    asked = [str(folders[0]), PROMPT, "--max-tokens", "24", "--temperature", "0.9"]
    said = {}
    for seed in ("3", "4"):
        main([*asked, "--seed", seed])
        alone = capsys.readouterr()
        main([*asked, "--seed", seed, "--draft", str(folders[1])])
        drafted = capsys.readouterr()
        assert drafted.out == alone.out
        assert re.search(
            r"; \d+ % of \d+ drafted tokens accepted, \d\.\d tokens per pass of the teacher\n$",
            drafted.err,
        )
        said[seed] = alone.out
    assert said["3"] != said["4"]


@pytest.fixture(scope="module")
def translators(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("translators")
    there = [put(root / f"{seed}", "m2m100", nllb_tokenizer(root), seed) for seed in (1, 2)]
    return refer(root / "teacher", there[0]), refer(root / "student", there[1])


def test_an_encoder_decoder_answers_from_what_its_decoder_begins_with(translators, capsys) -> None:
    """With a draft or without, and as the library's own `generate` does."""
    asked = [str(translators[0]), "one two", "--max-tokens", "9", "--device", "cpu"]
    main(asked)
    alone = capsys.readouterr()
    main([*asked, "--draft", str(translators[1])])
    drafted = capsys.readouterr()
    assert drafted.out == alone.out
    assert "drafted tokens accepted" in drafted.err
    ready = speaker(translators[0], None, CPU)
    theirs = ready.model.generate(
        **ready.tokenizer("one two", return_tensors="pt"),
        decoder_input_ids=torch.tensor([decoder_start(ready.model)]),
        forced_bos_token_id=None,
        max_new_tokens=9,
        num_beams=1,
        do_sample=False,
        suppress_tokens=list(ready.vocabulary.forbidden),
    )
    assert alone.out == ready.tokenizer.decode(theirs[0], skip_special_tokens=True) + "\n"


def test_a_draft_of_another_kind_is_refused(folders, translators) -> None:
    plain = put(translators[0].parent / "t5", "t5", plain_tokenizer())
    with pytest.raises(UserError, match="different tokenizers"):
        speaker(plain, folders[0], CPU)
    other = put(translators[0].parent / "bart", "bart", plain_tokenizer())
    with pytest.raises(UserError, match="begins with"):
        speaker(plain, other, CPU)


def test_a_source_and_an_answer_of_an_encoder_decoder_are_counted_apart(translators) -> None:
    ready = speaker(translators[0], None, CPU)  # of 128 positions
    assert answer(ready, "one two " * 20, generate.Sampling(0.0), 100, 0).decoded.rollout
    with pytest.raises(UserError, match="over the 128 positions"):
        answer(ready, "one two", generate.Sampling(0.0), 127, 0)


def test_a_model_that_drafts_for_itself_is_always_accepted(folders) -> None:
    answered = answer(speaker(folders[0], folders[0], CPU), PROMPT, generate.Sampling(0.0), 24, 0)
    drafts = answered.decoded.drafts
    emitted = answered.decoded.rollout.batch.response_tokens
    assert emitted > drafts.kept >= emitted - drafts.blocks - 1


def test_words_are_shown_while_the_answer_is_made(folders, monkeypatch) -> None:
    """The text that stands there when the model is asked for its last token."""
    written = io.StringIO()
    monkeypatch.setattr(sys, "stdout", written)
    at_the_end: list[str] = []
    put = generate.TextStreamer.put

    def watched(streamer, ids):
        at_the_end.append(written.getvalue())
        put(streamer, ids)

    monkeypatch.setattr(generate.TextStreamer, "put", watched)
    answered = answer(speaker(folders[0], None, CPU), PROMPT, generate.Sampling(1.0), 60, 1)
    assert len(at_the_end) == answered.decoded.rollout.batch.response_tokens
    assert 0 < len(at_the_end[-1]) < len(written.getvalue())


def test_the_standard_input_is_one_prompt_and_arguments_are_several(
    folders, capsys, monkeypatch
) -> None:
    main([str(folders[0]), "--max-tokens", "5", PROMPT, "it is\n15"])
    several = capsys.readouterr()
    assert several.err.count(" tokens in ") == 2
    monkeypatch.setattr(sys, "stdin", io.StringIO("it is\n15\n"))
    main([str(folders[0]), "--max-tokens", "5"])
    piped = capsys.readouterr()
    assert piped.err.count(" tokens in ") == 1
    assert several.out.endswith(piped.out)


def test_what_cannot_be_answered_is_refused(folders, tmp_path, monkeypatch) -> None:
    stranger = make_model(tmp_path / "stranger", 3, "quite another text")
    with pytest.raises(UserError, match="different tokenizers"):
        speaker(folders[0], stranger, CPU)
    with pytest.raises(UserError, match=r"over the 1024 positions of LlamaForCausalLM"):
        main([str(folders[0]), PROMPT, "--max-tokens", "1020"])
    monkeypatch.setattr(sys, "stdin", io.StringIO(" \n"))
    with pytest.raises(UserError, match="there is no prompt"):
        main([str(folders[0])])
    for wrong in (["--top-p", "0"], ["--temperature", "-1"], ["--max-tokens", "0"]):
        with pytest.raises(SystemExit):
            main([str(folders[0]), PROMPT, *wrong])


def test_the_command_says_a_mistake_in_one_line(tmp_path) -> None:
    command = [sys.executable, "-m", "skd.generate", str(tmp_path), "hello"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {tmp_path}: no model here (config.json is missing)\n"
