"""What the settings of a run refuse, and what their messages say."""

from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from skd.engine.settings import RULES, Acceptance, Sampling
from skd.settings import describe_errors
from skd.training.schedule import learning_rate
from skd.training.settings import MethodSettings, Optimisation

SHORTEST = {"steps": 10, "batch_size": 1, "learning_rate": 0.1}


def complaints(kind: type, values: dict[str, Any]) -> list[str]:
    with pytest.raises(ValidationError) as raised:
        TypeAdapter(kind).validate_python(values)
    return describe_errors(raised.value)


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_has_a_default_in_its_own_range(rule) -> None:
    made = TypeAdapter(Acceptance).validate_python({"rule": rule})
    assert made.value == RULES[rule].default != RULES[rule].lowest
    assert RULES[rule].lowest <= made.value <= RULES[rule].highest


@pytest.mark.parametrize("name", ["value", "final_value"])
@pytest.mark.parametrize(
    ("rule", "wrong"),
    [("top_k", 0), ("top_k", 0.9), ("top_p", 25), ("min_prob", 25), ("ratio", 25), ("ratio", -0.1)],
)
def test_a_value_out_of_its_rules_range_names_parameter_range_and_remedy(rule, wrong, name) -> None:
    (complaint,) = complaints(Acceptance, {"rule": rule, name: wrong})
    assert complaint.startswith(f"{name}: must be at least {RULES[rule].lowest:g}")
    assert f"for the rule {rule}" in complaint
    assert "leave it out for" in complaint


@pytest.mark.parametrize(("rule", "value"), [("top_k", 800), ("min_prob", 0), ("ratio", 1)])
def test_the_ends_of_a_range_belong_to_it(rule, value) -> None:
    assert Acceptance(rule, value).value == value


def test_an_unknown_rule_is_one_complaint() -> None:
    (complaint,) = complaints(Acceptance, {"rule": "top_q"})
    assert complaint.startswith("rule: ")


def test_ratio_does_not_go_with_argmax() -> None:
    (complaint,) = complaints(Acceptance, {"rule": "ratio", "replacement": "argmax"})
    assert "ratio" in complaint
    assert "choose sample" in complaint


@pytest.mark.parametrize(("value", "final_value"), [(0, 0.5), (0.5, 0)])
def test_a_cosine_of_logarithms_does_not_reach_0(value, final_value) -> None:
    row = {"rule": "min_prob", "value": value, "final_value": final_value, "schedule": "cosine"}
    (complaint,) = complaints(Acceptance, row)
    assert "choose linear" in complaint


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -1])
@pytest.mark.parametrize("name", ["learning_rate", "weight_decay", "clip", "warmup", "dropout"])
def test_numbers_of_an_optimisation_are_finite_and_in_range(name, wrong) -> None:
    (complaint,) = complaints(Optimisation, SHORTEST | {name: wrong})
    assert complaint.startswith(f"{name}: ")


@pytest.mark.parametrize("wrong", [0, -1, math.nan])
def test_a_learning_rate_is_above_0_in_the_optimisation_and_in_a_methods_row(wrong) -> None:
    for kind, given in ((Optimisation, SHORTEST), (MethodSettings, {"method": "sft"})):
        (complaint,) = complaints(kind, given | {"learning_rate": wrong})
        assert complaint.startswith("learning_rate: ")


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("temperature", -1), ("temperature", math.nan), ("top_p", 0), ("top_p", math.nan)],
)
def test_sampling_is_in_range(name, wrong) -> None:
    (complaint,) = complaints(Sampling, {name: wrong})
    assert complaint.startswith(f"{name}: ")


def test_a_rows_own_learning_rate_is_used_whatever_it_is() -> None:
    flat = Optimisation(**SHORTEST, warmup=0.0, decay="none")
    assert learning_rate(flat, None, 0) == 0.1
    assert learning_rate(flat, 0.0, 0) == 0.0
