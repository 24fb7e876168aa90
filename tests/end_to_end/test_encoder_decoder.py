"""A pair of encoder–decoders through the stages, from files of text to the exported student."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from pipelines import plan, push
from pipelines.runs import folders
from skd.engine.sources import decoder_start
from skd.generate import main as ask
from skd.models.loading import load_model
from skd.models.pairs import common_vocabulary
from tests.end_to_end.stages import run_stages, tiny_experiment
from tests.folders import CODES, nllb_tokenizer, put

pytestmark = pytest.mark.slow
TASK, SEED = "translation", 20
METHODS = ["sft", "supervised_kd", "on_policy_kd", "skd"]
WORDS = ["eins", "zwei", "drei", "vier", "fünf"]
IN_ENGLISH = dict(zip(WORDS, ["one", "two", "three", "four", "five"], strict=True))


def rows(count: int, first: int) -> list[dict[str, str]]:
    """Numbers of four words, each row another one."""
    drawn = [
        [WORDS[(n // 5**place) % 5] for place in range(4)] for n in range(first, first + count)
    ]
    return [
        {"de": " ".join(words), "en": " ".join(IN_ENGLISH[word] for word in words)}
        for words in drawn
    ]


def parameters(root: Path) -> dict:
    files = {split: str(root / f"input/data/{split}.jsonl") for split in SPLITS}
    params = tiny_experiment(TASK, METHODS)
    params["data"] = {
        TASK: {
            "task": "translation",
            "source": {"kind": "files", **files, "columns": {"source": "de", "target": "en"}},
            "prompt": "{source}",
            "license": "CC0-1.0",
        }
    }
    params["budget"] = {TASK: {"max_prompt_tokens": 60, "max_new_tokens": 12}}
    params["models"] = {
        "languages": dict(zip(("source", "target"), CODES, strict=True)),
        **{
            role: {"kind": "folder", "path": str(root / "input/models" / role), "license": "MIT"}
            for role in ("teacher", "student")
        },
    }
    return params


SPLITS = {"train": (40, 0), "validation": (8, 100), "test": (10, 200)}


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """All stages, run once."""
    root = tmp_path_factory.mktemp("translators")
    (root / "input/data").mkdir(parents=True)
    for split, made in SPLITS.items():
        lines = [json.dumps(row) + "\n" for row in rows(*made)]
        (root / f"input/data/{split}.jsonl").write_text("".join(lines))
    for seed, role in enumerate(("teacher", "student")):
        put(root / "input/models" / role, "m2m100", nllb_tokenizer(root), seed)
    run_stages(root, parameters(root))
    return root


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def test_every_model_is_tested_on_every_row(project) -> None:
    with (project / "reports/results.csv").open() as file:
        found = list(csv.DictReader(file))
    assert {row["method"] for row in found} >= {"teacher", "student_init", *METHODS}
    text = (project / "reports/report.md").read_text()
    assert all(f"`{method}`" in text for method in METHODS)


def test_interleaved_responses_are_sampled_and_their_teacher_agrees_in_part(project) -> None:
    (run,) = read(project / "metrics/distill/skd.json")["tasks"][TASK].values()
    assert 0.0 < run["acceptance_rate"] <= 100.0
    found = read(project / "metrics/probe.json")["tasks"][TASK]["skd"]
    assert found["draft"]["ways"]["assisted"]["equal"] == found["draft"]["prompts"]


def test_the_pair_is_described_by_its_decoders(project) -> None:
    pair = read(project / "metrics/base.json")
    assert pair["encoder_decoder"]
    assert pair["teacher"]["size"]["layers"] == 2  # of its encoder: 1
    assert pair["teacher"]["size"]["architecture"] == "M2M100ForConditionalGeneration"


def test_a_plan_from_the_prepared_rows_counts_both_halves(project, monkeypatch, capsys) -> None:
    monkeypatch.chdir(project)
    plan.main(["--device", "cpu"])
    said = capsys.readouterr().out
    assert "1 + 2 layers of 16" in said
    assert "| distill@skd " in said


def test_the_best_student_answers_as_the_librarys_own_generate(
    project, monkeypatch, capsys
) -> None:
    """From its folder alone: its languages, its start, its words."""
    monkeypatch.chdir(project)
    folder = folders.BEST / TASK
    model = AutoModelForSeq2SeqLM.from_pretrained(folder, use_safetensors=True)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert (tokenizer.src_lang, tokenizer.tgt_lang) == tuple(CODES)
    ask([str(folder), "eins zwei", "--max-tokens", "8", "--device", "cpu"])
    source = tokenizer("eins zwei", return_tensors="pt")
    asked = {"num_beams": 1, "do_sample": False, "max_new_tokens": 8}
    start = model.generate(**source, **asked)[:, :2]
    assert tuple(start[0].tolist()) == decoder_start(load_model(folder))
    theirs = model.generate(
        **source,
        **asked,
        decoder_input_ids=start,
        forced_bos_token_id=None,
        suppress_tokens=list(common_vocabulary(tokenizer, model).forbidden),
    )
    assert capsys.readouterr().out == tokenizer.decode(theirs[0], skip_special_tokens=True) + "\n"


def test_its_card_says_what_it_is_and_it_may_be_pushed(project, monkeypatch, capsys) -> None:
    monkeypatch.chdir(project)
    card = (folders.BEST / TASK / "README.md").read_text()
    assert "pipeline_tag: translation" in card
    assert "AutoModelForSeq2SeqLM" in card
    push.main(["someone/translator", "--dry-run"])
    assert "dry run" in capsys.readouterr().out
