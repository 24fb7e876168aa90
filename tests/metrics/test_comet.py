"""COMET's real code path on a tiny random checkpoint; its scores mean nothing and stay here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from skd.errors import UserError
from skd.metrics import comet as comet_metric
from skd.metrics.score import score

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


@pytest.mark.slow
@third_party
def test_a_local_checkpoint_scores_the_maximum_over_references(checkpoint):
    outputs = ["one two", "four"]
    scores = score(
        "translation", ROWS, outputs, [True, True], only={"comet"}, comet=str(checkpoint)
    )
    singles = [
        score(
            "translation", [{**ROWS[0], "references": [reference]}], outputs[:1], [True],
            only={"comet"}, comet=str(checkpoint),
        ).system["comet"]
        for reference in ROWS[0]["references"]
    ]  # fmt: skip
    assert singles[0] != singles[1]
    assert scores.per_example["comet"][0] == pytest.approx(max(singles), abs=1e-4)
    assert scores.system["comet"] == pytest.approx(sum(scores.per_example["comet"]) / 2)
    model = comet_metric.load(str(checkpoint), None)
    segment = {"src": ROWS[1]["source"], "mt": "four", "ref": "four"}
    direct = model.predict([segment], gpus=0, progress_bar=False, num_workers=0).scores[0]
    assert scores.per_example["comet"][1] == pytest.approx(100 * direct, abs=1e-4)
    assert checkpoint.name in scores.signatures["comet"]
    assert str(checkpoint.parent) not in scores.signatures["comet"]


def test_a_missing_file_of_the_folder_is_named(tmp_path):
    with pytest.raises(UserError, match=re.escape("model.ckpt")):
        score("translation", ROWS, ["", ""], [True, True], only={"comet"}, comet=str(tmp_path))


def test_a_path_that_does_not_exist_is_not_taken_for_a_hub_id(tmp_path):
    with pytest.raises(UserError, match="no folder"):
        comet_metric.load(str(tmp_path / "nothing"), None)


def test_a_hub_id_offline_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"evaluate\.comet"):
        comet_metric.load("Unbabel/wmt22-comet-da", None)
