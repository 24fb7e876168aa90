"""sacrebleu's paired tests: its own numbers, an exact reference, planted differences."""

from __future__ import annotations

import csv
import os
import random
from dataclasses import replace
from itertools import product, zip_longest
from pathlib import Path

import pytest
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.significance import PairedTest

from pipelines.schema import load
from skd.metrics.base import Batch
from skd.metrics.score import score
from skd.report.reading.experiment import ExperimentResults
from skd.report.reading.reader import read_experiment
from skd.report.verdicts.crosscheck import cross_checks
from skd.report.verdicts.sacrebleu_tests import SCORERS, SEED_VARIABLE, paired
from tests.report.conftest import built, texts

WORDS = "a cat sat on the mat and saw one dog run far from its red house".split()  # noqa: SIM905
LIBRARY = {"chrf": CHRF, "bleu": BLEU}


def corpus(rows: int, kept: dict[str, float], seeds: int = 1) -> tuple[list[dict], dict]:
    """Rows with one to three references; system -> outputs that keep so many of their words."""
    rng = random.Random(0)
    data = []
    for number in range(rows):
        texts = [" ".join(rng.choices(WORDS, k=9)) for _ in range(1 + number % 3)]
        data.append({"id": f"test-{number}", "references": texts})

    def output(row: dict, share: float) -> str:
        words = row["references"][0].split()
        return " ".join(w if rng.random() < share else rng.choice(WORDS) for w in words)

    systems = {
        name: [output(row, share) for _ in range(seeds) for row in data]
        for name, share in kept.items()
    }
    return data, systems


def outcome(data: list[dict], systems: dict, trials: int = 1000) -> dict:
    references = Batch(data, [], []).references
    return paired(systems, {name: scorer(references) for name, scorer in SCORERS.items()}, trials)


@pytest.mark.parametrize("metric", SCORERS)
def test_the_numbers_are_those_of_sacrebleus_own_metrics(metric):
    data, systems = corpus(30, {"ours": 0.8, "near": 0.75, "far": 0.4}, seeds=2)
    streams = list(zip_longest(*[row["references"] for row in data] * 2))
    library = LIBRARY[metric](references=streams)
    test = PairedTest(list(systems.items()), {metric: library}, None, n_samples=200)
    signatures, scores = test()
    ((name, signature),) = signatures.items()
    results = outcome(data, systems, trials=200)[metric]
    for other, expected in zip(systems, scores[name], strict=True):
        if other != "ours":
            ours, theirs, p, shown = results[other]
            assert (ours, theirs) == pytest.approx((scores[name][0].score, expected.score))
            assert p == expected.p_value
            assert shown == str(signature)
    assert "seed:12345" in str(signature)


@pytest.mark.parametrize("metric", SCORERS)
@pytest.mark.parametrize("share", [0.35, 0.6, 0.7])
def test_p_is_the_share_of_all_exchanges_that_are_more_extreme(metric, share):
    """All 2^8 assignments of outputs to systems, scored one by one by `skd.metrics`."""
    data, systems = corpus(8, {"ours": 0.7, "other": share})
    columns = list(zip(*systems.values(), strict=True))

    def difference(exchanged: tuple[bool, ...]) -> float:
        pairs = [pair[::-1] if swap else pair for pair, swap in zip(columns, exchanged)]  # noqa: B905
        first, second = (
            score("translation", data, list(side), [True] * 8, only={metric}).system[metric]
            for side in zip(*pairs, strict=True)
        )
        return abs(first - second)

    observed = difference((False,) * 8)
    found = [difference(swaps) for swaps in product((False, True), repeat=8)]
    exact = sum(value > observed + 1e-9 for value in found) / len(found)
    (_, _, p, _) = outcome(data, systems, trials=4000)[metric]["other"]
    assert p == pytest.approx(max(exact, 2 / 2**8), abs=0.03)


def test_equal_outputs_and_one_that_differs_are_not_told_apart():
    data, systems = corpus(20, {"ours": 0.7})
    systems["same"] = list(systems["ours"])
    systems["one off"] = [*systems["ours"][:-1], ""]
    systems["five off"] = [*systems["ours"][:-5], *[""] * 5]
    for results in outcome(data, systems).values():
        assert results["same"][2] == 1.0
        assert results["one off"][2] == 1.0  # sacrebleu alone says 0.001
        assert results["five off"][2] >= 2 / 2**5


# ------------------------------------------------------------------ in a report
def with_outputs(root: Path, kept: dict[str, float]) -> ExperimentResults:
    """The tree's run with outputs that keep so many words of the references."""
    experiment = load(root / "params.yaml").experiment
    results = read_experiment(root, experiment.tasks, experiment.methods, experiment.seeds)
    (task,) = results.tasks
    data, systems = corpus(len(task.rows), kept, len(results.seeds))
    rows = [row | {"id": i} for row, i in zip(data, task.ids, strict=True)]
    models = dict(task.models)
    for name, outputs in systems.items():
        texts = iter(outputs)
        records = {
            seed: {i: replace(known[i], output=next(texts)) for i in task.ids}
            for seed, known in models[name].outputs.items()
        }
        models[name] = replace(models[name], outputs=records)
    return replace(results, tasks=[replace(task, rows=rows, models=models)])


@pytest.fixture
def root(make_tree) -> Path:
    return make_tree({"sft": 50, "on_policy_kd": 60, "skd": 62}, {"translation": "translation"})


def test_a_planted_difference_is_found_and_equal_methods_are_undecided(root):
    results = with_outputs(root, {"sft": 0.4, "on_policy_kd": 0.7, "skd": 0.7})
    found = cross_checks(results, "skd")
    assert {(c.metric, c.other): c.word for c in found} == {
        ("chrf", "sft"): "better",
        ("bleu", "sft"): "better",
        ("chrf", "on_policy_kd"): "undecided",
        ("bleu", "on_policy_kd"): "undecided",
    }
    assert all(c.holm_p >= c.p for c in found)
    assert min(c.holm_p for c in found) == pytest.approx(4 * min(c.p for c in found))
    losing = cross_checks(results, "sft")
    assert {c.word for c in losing} == {"worse"}


def test_whatever_the_environment_says_the_seed_is_the_reports(root, monkeypatch):
    results = with_outputs(root, {"sft": 0.6, "on_policy_kd": 0.65, "skd": 0.7})
    monkeypatch.delenv(SEED_VARIABLE, raising=False)
    first = cross_checks(results, "skd")
    assert SEED_VARIABLE not in os.environ
    monkeypatch.setenv(SEED_VARIABLE, "none")
    assert cross_checks(results, "skd") == first
    assert os.environ[SEED_VARIABLE] == "none"


def test_only_tasks_with_both_metrics_are_tested(make_tree):
    root = make_tree({"sft": 50, "skd": 62}, {"arithmetic": "arithmetic"})
    pages = texts(root)
    assert "crosscheck" not in pages
    assert "sacrebleu's own" not in pages["report"]


def test_the_report_shows_it_beside_our_verdicts_and_is_the_same_again(root):
    """The tree's outputs differ in the methods' names alone; its scores are planted."""
    part = built(root)["crosscheck"]
    assert "cannot see the spread between training runs" in part.replace("\n", " ")
    assert "| against | corpus chrF, difference | Holm p | verdict | BLEU, difference |" in part
    assert "translation: corpus chrF says *" in part  # `sft` is worse by its planted scores
    with (root / "reports" / "tables" / "sacrebleu.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(row["metric"], row["other"]) for row in rows} == {
        (metric, other) for metric in SCORERS for other in ("sft", "on_policy_kd")
    }
    ours = {row["other"]: row["verdict_of_the_report"] for row in rows}
    assert ours["sft"] == "better"
    assert texts(root)["crosscheck"] == part
