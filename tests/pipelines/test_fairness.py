"""Tuning by the same number of tries, and budgets that are equal in the end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipelines.parameters import read_parameters
from pipelines.runs.budgets import BUDGETS, LONGEST, STEPS, factors, longer
from pipelines.runs.tries import best, candidates
from pipelines.schema import parse
from pipelines.stages.fairness import Parameters
from skd.errors import UserError
from skd.results.runs import Preparation, RunCost, TrainedRun, Validation
from skd.training.settings import Distill, Optimisation, changed

ROOT = Path(__file__).resolve().parents[2]
DISTILL = Distill(Optimisation(steps=100, batch_size=8, learning_rate=1e-3, validate_every=50))


@pytest.fixture
def params() -> Parameters:
    default = read_parameters(Parameters, file=ROOT / "profiles" / "embedded.yaml")
    return replace(default, tasks=["summarization"])


def taken(
    tokens: int = 0, seconds: float = 0.0, metric: float = 0.0, own: int = 0, before: float = 0.0
) -> TrainedRun:
    """A run of which the teacher's own responses took `own` tokens and `before` seconds."""
    return TrainedRun(
        steps=100,
        best_step=100,
        prompts=800,
        response_tokens=1,
        student_sampled_tokens=tokens,
        teacher_sampled_tokens=own,
        teacher_passes=0,
        teacher_tokens=0,
        acceptance_rate=None,
        validation=Validation(metric),
        training_rows=1,
        dropped_prompts=0,
        cut_responses=0,
        cost=RunCost(seconds + before, seconds + before, {}, None),
        preparation=Preparation(before, own),
    )


def test_every_method_has_the_same_number_of_tries(params: Parameters) -> None:
    counts: dict[str, int] = {}
    for one in candidates(params.fairness, params.tasks, params.methods):
        counts[one.method] = counts.get(one.method, 0) + 1
        knob = params.fairness.knobs[one.method]
        assert one.settings == changed(
            params.methods[one.method],
            {knob.setting: one.value, "learning_rate": one.learning_rate},
            one.method,
        )
    assert set(counts) == set(params.fairness.knobs)
    assert len(set(counts.values())) == 1


def test_unequal_tries_are_refused() -> None:
    raw = yaml.safe_load((ROOT / "profiles" / "embedded.yaml").read_text())
    raw["fairness"]["knobs"]["skd"]["values"] = [1, 5, 25]
    with pytest.raises(UserError, match="not as many values for each method"):
        parse(raw)


costs = st.floats(min_value=0.1, max_value=1e4)


@given(
    st.lists(
        st.tuples(st.integers(1, 10_000), costs, st.integers(0, 10_000), costs),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from(list(BUDGETS)),
)
def test_a_budget_is_what_the_most_expensive_took(
    costs: list[tuple[int, float, int, float]], view: str
) -> None:
    runs = {
        str(i): taken(tokens, seconds, own=own, before=before)
        for i, (tokens, seconds, own, before) in enumerate(costs)
    }
    spent = {name: BUDGETS[view](run) for name, run in runs.items()}
    budget = max(one.whole for one in spent.values())
    found = factors(runs, view)
    assert min(found.values()) == pytest.approx(1.0)
    for name, factor in found.items():
        one = spent[name]
        takes = one.once + factor * (one.whole - one.once)
        assert takes == pytest.approx(budget) or factor == LONGEST


def test_the_teachers_own_tokens_are_counted_once() -> None:
    """`seq_kd` generates nothing while it trains, and its responses are not free."""
    runs = {"seq_kd": taken(0, own=5000), "skd": taken(900, own=100), "sft": taken()}
    runs["skd"] = replace(runs["skd"], preparation=Preparation())  # replacements: step by step
    assert factors(runs, "tokens") == {"seq_kd": 1.0, "skd": 5.0, "sft": 1.0}


def test_what_takes_nothing_keeps_its_steps() -> None:
    runs = {"sft": taken(0, 2.0), "skd": taken(900, 8.0)}
    assert factors(runs, "tokens") == {"sft": 1.0, "skd": 1.0}
    assert factors(runs, "seconds") == {"sft": 4.0, "skd": 1.0}
    assert factors(runs, STEPS) == {"sft": 1.0, "skd": 1.0}


def test_a_longer_run_is_validated_as_often() -> None:
    run = longer(DISTILL, 2.5).optimisation
    assert (run.steps, run.validate_every) == (250, 125)
    assert run.validations == DISTILL.optimisation.validations


def test_the_best_try_is_chosen_on_validation_and_ties_go_to_the_earlier(
    params: Parameters,
) -> None:
    tried = candidates(params.fairness, params.tasks, params.methods)
    metrics = [1.0] * len(tried)
    last = max(place for place, one in enumerate(tried) if one.method == "skd")
    metrics[last] = 2.0
    chosen = best(tried, [taken(metric=metric) for metric in metrics])
    for (task, method), place in chosen.items():
        own = [i for i, one in enumerate(tried) if (one.task, one.method) == (task, method)]
        assert place == (last if method == "skd" else own[0])
