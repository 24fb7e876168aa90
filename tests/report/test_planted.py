"""Whole reports of simulated runs: planted effects are found, equal methods are not told apart.

Every report is made from per-example scores by the path of the stage `report`: verdicts,
words, Markdown. Only reading files is left out; the scores are new in each run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from skd.report.reading.analyses import read_analyses
from skd.report.reading.experiment import ExperimentResults, ModelScores
from skd.report.sections import comparisons
from skd.report.sections.main import report
from skd.report.sections.provenance import Provenance
from skd.report.verdicts.comparison import Word
from skd.report.verdicts.evidence import weigh
from tests.report.conftest import read

REPORTS = 100
EXAMPLES = 200
RESAMPLES = 20  # of the intervals over tasks, on which no word rests
MARGIN = 2.0
MEAN = 50.0
EFFECT = 6.0  # points: a third of the spread of one method's scores
ABILITY, NOISE = 15.0, 10.0  # standard deviations of examples and of outputs
PAIR = ("skd", "on_policy_kd")
EQUAL = dict.fromkeys((*PAIR, "supervised_kd", "imit_kd", "sft"), MEAN)
PROVENANCE = Provenance("none", dirty=False, parameters_hash="none", command="none")
RELATION = re.compile(r"(better|worse) than ((?:`\w+`(?:, | and )?)+)")


@dataclass(frozen=True)
class Simulated(ModelScores):
    """A model with planted scores of the primary metric."""

    planted: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    def by_example(self, metric: str, ids: Sequence[str]) -> dict[str, NDArray[np.float64]]:
        assert (metric, len(ids)) == ("rouge_l", EXAMPLES)
        return dict(self.planted)


Reports = Callable[..., list["Made"]]


@dataclass(frozen=True)
class Made:
    """One report, and its verdicts on (method, other), both ways."""

    words: dict[tuple[str, str], Word]
    # The methods that may be chosen for being cheap
    good: list[str]
    # What is said of winning, and task by task
    text: str

    @property
    def decided(self) -> set[tuple[str, str]]:
        """(method, other) where the first is called better."""
        return {pair for pair, word in self.words.items() if word == Word.BETTER}

    @property
    def said(self) -> set[str]:
        """The others that the words call better or worse than the reference."""
        return {
            name
            for _, names in RELATION.findall(self.text)
            for name in re.findall(r"`(\w+)`", names)
        }


@pytest.fixture
def reports(make_tree) -> Reports:
    """Reports of methods with these true means; `spread`: between training runs."""

    def make(
        means: Mapping[str, float], spread: float = 1.0, count: int = REPORTS, seeds: int = 5
    ) -> list[Made]:
        root = make_tree(means, n=EXAMPLES, seeds=range(20, 20 + seeds))
        known = read(root)
        analyses = read_analyses(root, ["threshold"], [])
        rng = np.random.default_rng(0)
        made = []
        for number in range(count):
            drawn = simulated(known, means, spread, rng)
            evidence = weigh(drawn, analyses, "skd", MARGIN, resamples=RESAMPLES, seed=number)
            page = comparisons.page(drawn, evidence)
            main = report(drawn, evidence, [], PROVENANCE, [], {"comparisons": page})
            answer = main.split("## Does `skd` win?")[1].split("## Results")[0]
            words = page.split("## Task by task")[1].split("## Planned")[0]
            table = evidence.of("summarization")
            made.append(Made(dict(table.words), evidence.choices[0].good, answer + words))
        return made

    return make


def simulated(
    read: ExperimentResults, means: Mapping[str, float], spread: float, rng: np.random.Generator
) -> ExperimentResults:
    (task,) = read.tasks
    ability = rng.normal(0, ABILITY, EXAMPLES)  # hard and easy ones, for every method

    def scored(model: ModelScores, mean: float) -> Simulated:
        planted = {
            seed: mean + ability + rng.normal(0, NOISE, EXAMPLES) + rng.normal(0, spread)
            for seed in model.outputs
        }
        by_seed = {seed: {task.primary: float(v.mean())} for seed, v in planted.items()}
        return Simulated(**vars(model) | {"by_seed": by_seed, "planted": planted})

    models = {name: scored(task.models[name], mean) for name, mean in means.items()}
    return replace(read, tasks=[replace(task, models=task.models | models)])


def count(made: list[Made], holds: Callable[[Made], bool]) -> int:
    return sum(map(holds, made))


@pytest.mark.slow
@pytest.mark.parametrize("spread", [1.0, 2.0])
def test_of_equal_methods_none_is_called_better(reports, spread):
    """Five of one distribution: no word of the matrix and of the report claims a difference."""
    made = reports(EQUAL, spread)
    assert count(made, lambda m: not m.decided) >= 95
    assert count(made, lambda m: not m.said) >= 95
    for each in made:
        assert not re.search(r"\bti(e|ed|es)\b|cannot be told", each.text)
        assert each.decided or "wins" not in each.text


@pytest.mark.slow
def test_of_fourteen_equal_methods_none_is_called_better(reports):
    names = [*EQUAL, "seq_kd", "seq_kd_sampled", "on_policy_hard", "mixed_skd", "two_stage_kd",
             "skd_mixed_loss", "skd_instruct", "on_policy_kd_instruct", "sft_instruct"]  # fmt: skip
    made = reports(dict.fromkeys(names, MEAN), count=20)
    assert count(made, lambda m: not m.decided and not m.said) >= 18


@pytest.mark.slow
def test_equal_methods_beside_real_differences_are_not_told_apart(reports):
    worse = ("supervised_kd", "imit_kd", "sft")
    made = reports(EQUAL | dict.fromkeys(worse, MEAN - EFFECT))
    true = {(good, bad) for good in PAIR for bad in worse}
    assert count(made, lambda m: m.decided <= true) >= 95
    assert count(made, lambda m: PAIR[1] not in m.said) >= 95
    for other in worse:
        assert count(made, lambda m, other=other: ("skd", other) in m.decided) >= 95
        assert count(made, lambda m, other=other: other not in m.good) >= 95


@pytest.mark.slow
def test_a_planted_win_is_found_and_said(reports):
    made = reports(EQUAL | {"skd": MEAN + EFFECT})
    assert count(made, lambda m: PAIR in m.decided) >= 95
    assert count(made, lambda m: "**`skd` wins on summarization" in m.text) >= 90
    assert count(made, lambda m: m.good in (["skd"], [])) >= 95


@pytest.mark.slow
def test_a_planted_loss_is_found_and_said(reports):
    made = reports(EQUAL | {"on_policy_kd": MEAN + EFFECT})
    assert count(made, lambda m: PAIR[::-1] in m.decided) >= 95
    assert count(made, lambda m: "worse than `on_policy_kd`" in m.text) >= 95
    assert count(made, lambda m: "`skd` wins" in m.text) == 0


@pytest.mark.slow
def test_what_truly_lies_within_the_margin_is_called_equal(reports):
    """With many stable runs; nothing further apart than the margin is."""
    made = reports(EQUAL | {"sft": MEAN - 2 * MARGIN}, spread=0.3, count=20, seeds=10)
    assert count(made, lambda m: m.words[PAIR] == Word.EQUAL) >= 18
    assert count(made, lambda m: m.words["skd", "sft"] == Word.EQUAL) == 0
