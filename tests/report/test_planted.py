"""Whole reports of simulated runs: equal methods come out as ties, planted effects are found.

Every report is made from per-example scores by the path of the stage `report`: families, all
pairs, words, Markdown. Only reading files is left out; the scores are new in each run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pytest
from skd.report.sections.markdown import report
from skd.report.verdicts.compare import BETTER, TIE, WORSE, Verdict
from skd.report.verdicts.pairs import OPPOSITE

from pipelines.schema import load
from skd.report.reading.analyses import read_analyses
from skd.report.reading.experiment import ExperimentResults, ModelScores
from skd.report.reading.reader import read_experiment
from skd.report.sections.provenance import Provenance
from skd.report.verdicts.evidence import weigh

REPORTS = 100
EXAMPLES = 200
RESAMPLES = 300
MEAN = 50.0
EFFECT = 6.0  # points: a third of the spread of one method's scores
ABILITY, NOISE = 15.0, 10.0  # standard deviations of examples and of outputs
PAIR = ("skd", "on_policy_kd")
EQUAL = dict.fromkeys((*PAIR, "supervised_kd", "imit_kd", "sft"), MEAN)
PROVENANCE = Provenance("none", dirty=False, parameters_hash="none", command="none")
CLAIMS = (  # all the ways to say that one of `PAIR` is better than the other
    re.compile(r"`skd` wins|is the best of"),
    re.compile(r"(better|worse) than [^.;)]*`on_policy_kd`"),
    re.compile(r"`on_policy_kd` \([\d.]+\), better than `skd`"),
)

Reports = Callable[..., list["Made"]]


@dataclass(frozen=True)
class Made:
    """One report, and its verdicts on (method, other)."""

    family: dict[tuple[str, str], str]
    pairs: dict[tuple[str, str], str]
    conclusion: str  # without the paragraph that explains the words


@pytest.fixture
def reports(make_tree) -> Reports:
    """`REPORTS` reports of methods with these true means; `spread`: between training runs."""

    def make(means: Mapping[str, float], spread: float = 1.0) -> list[Made]:
        root = make_tree(means, n=EXAMPLES)
        experiment = load(root / "params.yaml").experiment
        read = read_experiment(root, experiment.tasks, experiment.methods, experiment.seeds)
        analyses = read_analyses(root, experiment.sweeps, experiment.students)
        rng = np.random.default_rng(0)
        made = []
        for number in range(REPORTS):
            drawn = simulated(read, means, spread, rng)
            evidence = weigh(drawn, analyses, "skd", resamples=RESAMPLES, seed=number)
            text = report(drawn, analyses, evidence, [], PROVENANCE, [], 1)
            conclusion = text.split("## Conclusion")[1].split("A method *wins*")[0]
            family = words(evidence.families["summarization"][0].verdicts)
            pairs = words(pair.verdict for pair in evidence.pairs)
            made.append(Made(family, pairs, conclusion))
        return made

    return make


def words(verdicts: Iterable[Verdict]) -> dict[tuple[str, str], str]:
    return {(verdict.method, verdict.other): verdict.word for verdict in verdicts}


def simulated(
    read: ExperimentResults, means: Mapping[str, float], spread: float, rng: np.random.Generator
) -> ExperimentResults:
    (task,) = read.tasks
    ability = rng.normal(0, ABILITY, EXAMPLES)  # hard and easy ones, for every method

    def scored(model: ModelScores, mean: float) -> ModelScores:
        outputs, by_seed = {}, {}
        for seed, known in model.outputs.items():
            values = mean + ability + rng.normal(0, NOISE, EXAMPLES)
            values += rng.normal(0, spread)
            outputs[seed] = {
                name: replace(record, scores={task.primary: value})
                for (name, record), value in zip(known.items(), values.tolist(), strict=True)
            }
            by_seed[seed] = model.by_seed[seed] | {task.primary: float(values.mean())}
        return replace(model, outputs=outputs, by_seed=by_seed)

    models = {name: scored(task.models[name], mean) for name, mean in means.items()}
    return replace(read, tasks=[replace(task, models=task.models | models)])


def word(verdicts: Mapping[tuple[str, str], str], method: str, other: str) -> str:
    return verdicts.get((method, other)) or OPPOSITE[verdicts[other, method]]


def count(made: list[Made], holds: Callable[[Made], bool]) -> int:
    return sum(map(holds, made))


def claimed(made: Made) -> bool:
    return any(claim.search(made.conclusion) for claim in CLAIMS)


@pytest.mark.slow
@pytest.mark.parametrize("spread", [1.0, 2.0])
def test_of_equal_methods_none_is_called_better(reports, spread):
    """Five of one distribution: a verdict is one of four or of ten that are corrected together."""
    made = reports(EQUAL, spread)
    assert count(made, lambda m: word(m.family, *PAIR) == TIE) >= 95
    assert count(made, lambda m: word(m.pairs, *PAIR) == TIE) >= 95
    assert count(made, claimed) <= 5
    assert count(made, lambda m: "tied with" in m.conclusion) >= 95


@pytest.mark.slow
def test_a_tie_stays_one_beside_real_differences(reports):
    """Holm's correction is weakest where the family's other hypotheses are rejected."""
    worse = ("supervised_kd", "imit_kd", "sft")
    made = reports(EQUAL | dict.fromkeys(worse, MEAN - EFFECT))
    assert count(made, lambda m: word(m.family, *PAIR) == TIE) >= 95
    assert count(made, lambda m: word(m.pairs, *PAIR) == TIE) >= 95
    assert count(made, claimed) <= 5
    for other in worse:
        assert count(made, lambda m, other=other: word(m.family, "skd", other) == BETTER) >= 95


@pytest.mark.slow
def test_a_planted_win_is_found_and_said(reports):
    made = reports(EQUAL | {"skd": MEAN + EFFECT})
    assert count(made, lambda m: word(m.family, *PAIR) == BETTER) >= 95
    assert count(made, lambda m: word(m.pairs, *PAIR) == BETTER) >= 95
    assert count(made, lambda m: "**`skd` wins on summarization" in m.conclusion) >= 95
    assert count(made, lambda m: "It is the best of the 5 methods" in m.conclusion) >= 95
    assert count(made, claimed) >= 95


@pytest.mark.slow
def test_a_planted_loss_is_found_and_said(reports):
    made = reports(EQUAL | {"on_policy_kd": MEAN + EFFECT})
    assert count(made, lambda m: word(m.family, *PAIR) == WORSE) >= 95
    assert count(made, lambda m: word(m.pairs, *PAIR) == WORSE) >= 95
    assert count(made, lambda m: "worse than `on_policy_kd`" in m.conclusion) >= 95
    assert count(made, claimed) >= 95
    assert count(made, lambda m: "`skd` wins" in m.conclusion) == 0
