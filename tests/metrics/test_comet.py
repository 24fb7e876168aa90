"""COMET's real code path on a tiny random checkpoint; its scores mean nothing and stay here."""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from skd.errors import UserError
from skd.metrics import comet as comet_metric
from skd.metrics import known
from skd.metrics.base import Comet
from skd.metrics.score import Scores, score

ROWS = [
    {"id": "a", "source": "x y", "target": "one", "references": ["one", "two three"]},
    {"id": "b", "source": "z", "target": "four", "references": ["four"]},
]
# comet 2.2.7 and the Lightning it pins warn on import and on use; none of it is ours
third_party = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A RegressionMetric of 2 layers x 32 in the layout of a downloaded COMET folder."""
    import torch
    import yaml
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, XLMRobertaConfig

    root = tmp_path_factory.mktemp("comet")
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]  # ids 0 to 4, as in XLM-R
    words = [*special, "one", "two", "three", "four", "x", "y", "z"]
    pieces = Tokenizer(models.Unigram([(word, -float(i)) for i, word in enumerate(words)], 3))
    pieces.pre_tokenizer = pre_tokenizers.Whitespace()
    names = ("bos", "pad", "eos", "unk", "mask")
    tokens = {f"{name}_token": token for name, token in zip(names, special, strict=True)}
    tokens |= {"cls_token": special[0], "sep_token": special[2]}
    fast = PreTrainedTokenizerFast(tokenizer_object=pieces, **tokens)
    fast.save_pretrained(root / "encoder")
    XLMRobertaConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=64,
    ).save_pretrained(root / "encoder")  # fmt: skip

    from comet.models import RegressionMetric

    torch.manual_seed(0)
    hparams = {
        "class_identifier": "regression_metric",
        "pretrained_model": str(root / "encoder"),
        "hidden_sizes": [16],
    }
    model = RegressionMetric(
        **{key: value for key, value in hparams.items() if key != "class_identifier"},
        load_pretrained_weights=False,
        local_files_only=True,
    )
    (root / "checkpoints").mkdir()
    torch.save(
        {
            "state_dict": model.state_dict(),
            "hyper_parameters": dict(model.hparams),
            "pytorch-lightning_version": "2.0.0",
        },
        root / "checkpoints" / "model.ckpt",
    )
    # a moved checkpoint: the folder that the encoder had in training is gone
    (root / "hparams.yaml").write_text(yaml.safe_dump({**hparams, "pretrained_model": "gone"}))
    return root


@pytest.fixture
def predicted(monkeypatch) -> list[int]:
    """Number of segments of each call of the model."""
    calls: list[int] = []
    real = comet_metric._predict

    def spy(checkpoint, segments):
        calls.append(len(segments))
        return real(checkpoint, segments)

    monkeypatch.setattr(comet_metric, "_predict", spy)
    return calls


def scored(
    checkpoint: Path, folder: Path, rows=ROWS, outputs=("one two", "four"), bar=None
) -> Scores:
    settings = Comet(str(checkpoint), None, folder / "scores.sqlite", bar)
    stopped = [True] * len(rows)
    return score("translation", rows, outputs, stopped, only={"comet"}, comet=settings)


def direct(checkpoint: Path, segment: tuple[str, str, str]) -> float:
    """One segment's score from the model alone."""
    model = comet_metric.load(comet_metric.locate(str(checkpoint), None))
    named = dict(zip(("src", "mt", "ref"), segment, strict=True))
    return float(model.predict([named], gpus=0, progress_bar=False, num_workers=0).scores[0])


# ---------------------------------------------------------------------- scores
@pytest.mark.slow
@third_party
def test_a_local_checkpoint_scores_the_maximum_over_references(checkpoint, tmp_path):
    outputs = ["one two", "four"]
    scores = scored(checkpoint, tmp_path, outputs=outputs)
    singles = [
        scored(
            checkpoint,
            tmp_path / str(number),
            [{**ROWS[0], "references": [reference]}],
            outputs[:1],
        ).system["comet"]
        for number, reference in enumerate(ROWS[0]["references"])
    ]
    assert singles[0] != singles[1]
    assert scores.per_example["comet"][0] == pytest.approx(max(singles), abs=1e-4)
    assert scores.system["comet"] == pytest.approx(sum(scores.per_example["comet"]) / 2)
    assert scores.per_example["comet"][1] == pytest.approx(
        100 * direct(checkpoint, (ROWS[1]["source"], "four", "four")), abs=1e-4
    )
    assert checkpoint.name in scores.signatures["comet"]
    assert str(checkpoint.parent) not in scores.signatures["comet"]


# ----------------------------------------------------------------------- cache
@pytest.mark.slow
@third_party
def test_known_segments_need_no_model_and_have_the_models_own_values(
    checkpoint, tmp_path, predicted, monkeypatch
):
    first = scored(checkpoint, tmp_path)
    assert predicted == [3]  # one per reference
    best = max(direct(checkpoint, (ROWS[0]["source"], "one two", r)) for r in ("one", "two three"))
    assert first.per_example["comet"][0] == pytest.approx(100 * best, abs=1e-4)

    def fail(*_: object) -> None:
        raise AssertionError("the checkpoint was loaded")

    monkeypatch.setattr(comet_metric, "load", fail)
    assert scored(checkpoint, tmp_path) == first  # to the last bit


@pytest.mark.slow
@third_party
def test_only_what_is_new_is_scored_and_repeated_segments_once(checkpoint, tmp_path, predicted):
    scored(checkpoint, tmp_path)
    rows = [*ROWS, {**ROWS[1], "id": "c"}, {**ROWS[1], "id": "d"}]
    scores = scored(checkpoint, tmp_path, rows, ["one two", "four", "three", "three"])
    assert predicted == [3, 1]
    assert scores.per_example["comet"][2] == scores.per_example["comet"][3]


@pytest.mark.slow
@third_party
def test_another_content_of_the_checkpoint_misses(checkpoint, tmp_path, predicted):
    """Each change in a folder of the same name, and the tokenizer's files count too."""
    import torch

    copy = tmp_path / "checkpoint"
    shutil.copytree(checkpoint, copy)
    first = scored(copy, tmp_path)
    weights = copy / "checkpoints" / "model.ckpt"
    changed = torch.load(weights, weights_only=False)
    for tensor in changed["state_dict"].values():
        if tensor.is_floating_point():
            tensor.mul_(1.5)
    torch.save(changed, weights)
    second = scored(copy, tmp_path)
    assert predicted == [3, 3]
    assert first.system["comet"] != second.system["comet"]
    for file in (copy / "hparams.yaml", copy / "encoder" / "tokenizer_config.json"):
        file.write_text(file.read_text() + "\n")
        scored(copy, tmp_path)
    assert predicted == [3, 3, 3, 3]
    scored(copy, tmp_path)
    moved = copy.rename(tmp_path / "elsewhere")
    scored(moved, tmp_path)  # the same contents under another name
    assert predicted == [3, 3, 3, 3]


@pytest.mark.slow
@third_party
def test_many_segments_are_kept_part_by_part(checkpoint, tmp_path, predicted, monkeypatch, capsys):
    monkeypatch.setattr(comet_metric, "KEEP_EVERY", 2)
    parts = scored(checkpoint, tmp_path, bar=0)
    assert predicted == [2, 1]
    assert "COMET" in capsys.readouterr().err
    scored(checkpoint, tmp_path / "silent", bar=None)
    assert "COMET" not in capsys.readouterr().err
    monkeypatch.setattr(comet_metric, "KEEP_EVERY", 99)
    whole = scored(checkpoint, tmp_path / "whole")
    assert parts.per_example["comet"] == pytest.approx(whole.per_example["comet"], abs=1e-4)


# --------------------------------------------------------- the file of numbers
def numbers(process: int, count: int = 40) -> dict[bytes, float]:
    """Half of the keys are every process's, half its own."""
    return {f"{process if i % 2 else 'all'}-{i}".encode(): float(i) for i in range(count)}


def write_often(file: Path, process: int, ready: object) -> None:
    ready.wait()  # type: ignore[attr-defined]
    for key, number in numbers(process).items():
        known.write(file, {key: number})


def test_processes_write_at_once_and_lose_nothing(tmp_path):
    context = multiprocessing.get_context("fork")
    ready, file = context.Barrier(4), tmp_path / "new" / "scores.sqlite"
    started = [
        context.Process(target=write_often, args=(file, number, ready)) for number in range(4)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join()
    assert [process.exitcode for process in started] == [0] * 4
    expected = {key: number for process in range(4) for key, number in numbers(process).items()}
    assert known.read(file, [*expected, b"never written"]) == expected


def test_a_process_killed_while_writing_leaves_the_rest(tmp_path):
    file = tmp_path / "scores.sqlite"
    known.write(file, {b"before": 1.0})
    code = (
        "import os, sqlite3, sys, time\n"
        "connection = sqlite3.connect(sys.argv[1])\n"
        "connection.execute('PRAGMA cache_size = 1')\n"  # the write reaches the disk unfinished
        "rows = ((os.urandom(32), 2.0) for _ in range(5000))\n"
        "connection.executemany('INSERT INTO numbers VALUES (?, ?)', rows)\n"
        "print('written', flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(file)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        os.kill(process.pid, signal.SIGKILL)
    known.write(file, {b"after": 3.0})
    assert known.read(file, [b"before", b"after"]) == {b"before": 1.0, b"after": 3.0}
    with sqlite3.connect(file) as connection:
        assert connection.execute("SELECT COUNT(*) FROM numbers").fetchone() == (2,)
    connection.close()


def test_the_first_of_two_numbers_stays(tmp_path):
    file = tmp_path / "scores.sqlite"
    known.write(file, {b"key": 1.0})
    known.write(file, {b"key": 2.0})
    assert known.read(file, [b"key"]) == {b"key": 1.0}


def test_a_broken_file_is_named_with_the_remedy(tmp_path):
    file = tmp_path / "scores.sqlite"
    file.write_bytes(b"no database" * 500)
    with pytest.raises(UserError, match=r"scores\.sqlite: .*delete it.*runtime\.scratch"):
        known.read(file, [b"key"])


# ---------------------------------------------------------------------- errors
def test_a_missing_file_of_the_folder_is_named(tmp_path):
    with pytest.raises(UserError, match=re.escape("model.ckpt")):
        scored(tmp_path, tmp_path)


def test_a_path_that_does_not_exist_is_not_taken_for_a_hub_id(tmp_path):
    with pytest.raises(UserError, match="no folder"):
        comet_metric.locate(str(tmp_path / "nothing"), None)


def test_a_hub_id_offline_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"evaluate\.comet"):
        comet_metric.locate("Unbabel/wmt22-comet-da", None)
