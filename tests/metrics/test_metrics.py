"""The metrics give the numbers of the libraries whose names they carry."""

from __future__ import annotations

import random
from collections import Counter
from itertools import zip_longest

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from skd.errors import UserError
from skd.metrics import chrf, rouge
from skd.metrics.score import METRICS, score
from skd.tasks import TASKS

WORDS = "the a cat dog sat, on mat! 12 x2 Straße কৰা -- don't 3.50 it's runs far away".split()  # noqa: SIM905


def corpus(rows: int, references: int, seed: int = 0) -> tuple[list[dict], list[str]]:
    """Rows with ragged references and outputs that are near, equal to or far from them."""
    rng = random.Random(seed)

    def sentence() -> str:
        return " ".join(rng.choices(WORDS, k=rng.randint(1, 18)))

    data, outputs = [], []
    for number in range(rows):
        texts = [sentence() for _ in range(rng.randint(1, references))]
        data.append(
            {
                "id": f"test-{number}",
                "source": sentence(),
                "target": texts[0],
                "references": texts,
                "valid_pattern": None,
            }
        )
        near = " ".join(w for w in rng.choice(texts).split() if rng.random() < 0.8)
        outputs.append(rng.choice([rng.choice(texts), near, sentence(), "", "কৰা"]))
    return data, outputs


@pytest.fixture(scope="module")
def ragged() -> tuple[list[dict], list[str]]:
    return corpus(120, 7)


def transposed(rows: list[dict]) -> list:
    return list(zip_longest(*[row["references"] for row in rows]))


@pytest.mark.parametrize(("name", "library"), [("bleu", BLEU), ("chrf", CHRF)])
def test_corpus_score_and_signature_are_sacrebleus_with_ragged_references(ragged, name, library):
    rows, outputs = ragged
    scores = score("translation", rows, outputs, [True] * len(rows), only={name})
    metric = library()
    expected = metric.corpus_score(outputs, transposed(rows)).score
    assert scores.system[name] == pytest.approx(expected, abs=1e-9)
    assert scores.signatures[name] == str(metric.get_signature())
    assert "nrefs:var" in scores.signatures[name]
    assert name not in scores.per_example


def test_sentence_chrf_is_sacrebleus_maximum_over_the_references(ragged):
    rows, outputs = ragged
    ours = score("translation", rows, outputs, [True] * len(rows), only={"sentence_chrf"})
    metric = CHRF()
    for row, output, value in zip(rows, outputs, ours.per_example["sentence_chrf"], strict=True):
        singles = [metric.sentence_score(output, [one]).score for one in row["references"]]
        assert value == pytest.approx(max(singles), abs=1e-9)
        assert value == pytest.approx(
            metric.sentence_score(output, row["references"]).score, abs=1e-9
        )


@pytest.mark.parametrize(
    ("name", "key"), [("rouge_1", "rouge1"), ("rouge_2", "rouge2"), ("rouge_l", "rougeL")]
)
def test_rouge_is_rouge_scores_maximum_over_the_references(ragged, name, key):
    rows, outputs = ragged
    ours = score("summarization", rows, outputs, [True] * len(rows), only={name})
    scorer = RougeScorer([key])
    for row, output, value in zip(rows, outputs, ours.per_example[name], strict=True):
        assert value == 100 * scorer.score_multi(row["references"], output)[key].fmeasure
    assert ours.system[name] == pytest.approx(sum(ours.per_example[name]) / len(rows), abs=1e-9)


def slow_subsequence(first: list[str], second: list[str]) -> int:
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, left in enumerate(first):
        for j, right in enumerate(second):
            table[i + 1][j + 1] = (
                table[i][j] + 1 if left == right else max(table[i][j + 1], table[i + 1][j])
            )
    return table[-1][-1]


letters = st.lists(st.sampled_from("abcd"), max_size=80)


@settings(max_examples=150)
@given(letters, letters)
def test_bit_parallel_subsequence_equals_the_table(first, second):
    assert rouge.common_subsequence(tuple(first), tuple(second)) == slow_subsequence(first, second)


def test_an_output_equal_to_any_reference_scores_100(ragged):
    rows, _ = ragged
    outputs = [row["references"][-1] for row in rows]
    scores = score("translation", rows, outputs, [True] * len(rows), only={"sentence_chrf", "bleu"})
    assert scores.per_example["sentence_chrf"] == pytest.approx([100.0] * len(rows))
    assert scores.system["bleu"] == pytest.approx(100.0)


def test_all_references_count_not_only_the_target(ragged):
    rows, _ = ragged
    outputs = [row["references"][-1] for row in rows]
    less = [{**row, "references": [row["target"]]} for row in rows]
    for task, name in (
        ("translation", "bleu"),
        ("translation", "chrf"),
        ("summarization", "rouge_l"),
    ):
        full, poor = (
            score(task, data, outputs, [True] * len(rows), only={name}).system[name]
            for data in (rows, less)
        )
        assert full > poor


def test_valid_counts_only_rows_that_know_their_set():
    rows = [
        {"id": "a", "source": "", "target": "x", "references": ["x"], "valid_pattern": r"x|y+"},
        {"id": "b", "source": "", "target": "x", "references": ["x"], "valid_pattern": r"x|y+"},
        {"id": "c", "source": "", "target": "x", "references": ["x"], "valid_pattern": None},
    ]
    scores = score("summarization", rows, [" yyy\n", "xx", "x"], [True, False, True])
    assert scores.system["valid"] == 50.0
    assert scores.per_example["valid"][:2] == [100.0, 0.0]
    assert scores.system["stopped"] == pytest.approx(200 / 3)
    whole = [
        {"id": "d", "source": "", "target": "x", "references": ["x", "y"], "valid_pattern": None}
    ]
    whole[0]["references_complete"] = True
    assert score("summarization", whole, ["y "], [True]).system["valid"] == 100.0
    assert score("summarization", whole, ["z"], [True]).system["valid"] == 0.0
    unknown = score("summarization", rows[2:], ["x"], [True])
    assert "valid" not in unknown.system
    assert "valid" in unknown.not_scored


def test_comet_without_a_checkpoint_is_not_scored_and_never_a_zero():
    rows, outputs = corpus(3, 2)
    scores = score("translation", rows, outputs, [True] * 3)
    assert "comet" not in scores.system
    assert "comet" in scores.not_scored
    assert set(scores.system) | set(scores.not_scored) == set(TASKS["translation"].metrics)


@pytest.mark.parametrize("task", TASKS)
def test_every_metric_of_a_task_is_in_the_table_and_the_primary_is_per_example(task):
    settings_ = TASKS[task]
    assert set(settings_.metrics) <= set(METRICS)
    assert settings_.primary in settings_.metrics
    rows, outputs = corpus(3, 2)
    rows = [{**row, "target": "#### 1", "references": ["#### 1"]} for row in rows]
    scores = score(task, rows, outputs, [True] * 3)
    assert len(scores.per_example[settings_.primary]) == 3
    assert all(0 <= value <= 100 for value in scores.system.values())
    assert set(scores.signatures) == set(scores.system)


def test_bad_input_is_one_clear_error():
    row = {"id": "test-7", "source": "", "target": "x", "references": ["x"], "valid_pattern": "("}
    with pytest.raises(UserError, match="empty"):
        score("arithmetic", [], [], [])
    with pytest.raises(UserError, match=r"test-7.*####"):
        score("arithmetic", [row], ["x"], [True], only={"exact_match"})
    with pytest.raises(UserError, match=r"test-7.*valid_pattern"):
        score("arithmetic", [row], ["x"], [True], only={"valid"})
    with pytest.raises(UserError, match="unknown metric"):
        score("arithmetic", [row], ["x"], [True], only={"bleurt"})


@pytest.mark.parametrize(
    ("task", "module", "work"),
    [("translation", chrf, "_ngrams"), ("summarization", rouge, "tokenize")],
)
def test_a_validation_takes_no_reference_apart_again(task, module, work, monkeypatch):
    """Up to 44 references a row come back at each validation; only the outputs are new."""
    taken_apart: list[str] = []
    real = getattr(module, work)
    monkeypatch.setattr(module, work, lambda *given: taken_apart.append(given[0]) or real(*given))
    (rows, first), (_, second) = corpus(100, 44, seed=5), corpus(100, 44, seed=6)
    for outputs in (first, second, second):
        score(task, rows, outputs, [True] * 100, only={TASKS[task].primary})
    once = [reference for row in rows for reference in row["references"]] + first + second
    assert len(taken_apart) > 0
    assert Counter(taken_apart) <= Counter(once)


class LookedAt(str):
    """A token that counts how often it is looked at."""

    looks = 0

    def __hash__(self) -> int:
        LookedAt.looks += 1
        return super().__hash__()

    def __eq__(self, other: object) -> bool:
        LookedAt.looks += 1
        return super().__eq__(other)


def test_a_subsequence_is_found_without_a_table_of_all_pairs():
    """Each token is looked at a few times; a table compares each with each, 40,000 times here."""
    rng = random.Random(0)
    first, second = (tuple(LookedAt(rng.choice("abcdefgh")) for _ in range(200)) for _ in range(2))
    LookedAt.looks = 0
    assert rouge.common_subsequence(first, second) > 0
    assert LookedAt.looks <= 5 * (len(first) + len(second))
