"""Strict parameters: each mistake is one message that names the parameter."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import yaml

from pipelines.profile import compose, names
from pipelines.schema import load, parse
from pipelines.settings.sweeps import Sweep
from skd.errors import UserError
from skd.settings import canonical, label
from skd.training.settings import MethodSettings

ROOT = Path(__file__).resolve().parent.parent.parent
FILES = {"kind": "files", "test": "test.csv", "columns": {"source": "q", "answer": "a"}}
DEFAULT = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
# Rows that the default leaves out are checked where an experiment asks for them.
DEFAULT["experiment"] |= {"sweeps": ["threshold"], "fairness": ["summarization"]}


def changed(path: str, value: object) -> dict:
    raw = copy.deepcopy(DEFAULT)
    *parents, last = path.split(".")
    at = raw
    for name in parents:
        at = at[name]
    if value is ...:
        del at[last]
    else:
        at[last] = value
    return raw


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("distill.blocksize", 4, "unknown parameter 'distill.blocksize'"),
        ("methods.skd.acceptance.k", 5, "unknown parameter 'methods.skd.acceptance.k'"),
        ("nonsense", {}, "unknown parameter 'nonsense'"),
        ("distill.optimisation.steps", ..., "'distill.optimisation.steps' is missing"),
        ("distill.optimisation.steps", 0, "distill.optimisation.steps: .*greater than 0"),
        ("distill.optimisation.learning_rate", "fast", "learning_rate: .*'fast'"),
        ("methods.skd.method", "skdd", "methods.skd.method: .*'skdd'"),
        ("methods.skd.acceptance.rule", "top_q", "acceptance.rule: .*'top_q'"),
        ("distill.student_sampling.top_p", 1.5, "top_p: .*less than or equal to 1"),
        ("data.translation.source.kind", "ftp", "data.translation.source.*'ftp'"),
        ("distill.optimisation.weights", "nf4", "cannot be trained; set `adapter` beside it"),
        ("distill.optimisation.adapter", {"rank": 0}, "adapter.rank: .*greater than 0"),
        ("distill.optimisation.adapter", {"targets": []}, "adapter.targets: .*at least 1"),
        ("models.teacher_weights", "int3", "models.teacher_weights: .*'int3'"),
        ("runtime.teacher_device", "gpu", "runtime.teacher_device: .*'gpu'"),
        ("experiment.tasks", ["poetry"], "data.poetry is missing"),
        ("experiment.methods", ["magic"], "methods.magic is missing"),
        ("experiment.sweeps", ["magic"], "sweeps.magic is missing"),
        ("probe.methods", ["magic"], "methods.magic is missing"),
        ("sweeps.threshold.method", "magic", "methods.magic is missing"),
        ("sweeps.threshold.tasks", ["poetry"], "which experiment.tasks does not"),
        ("sweeps.threshold.setting", "acceptance.speed", "no setting of methods.skd"),
        (
            "sweeps.threshold.values",
            [-1],
            "acceptance.value = -1: acceptance.value: .*at least 1 for the rule top_k",
        ),
        ("sweeps.threshold.values", [5, 1, 5], "sweeps.threshold.values has '5' twice"),
        (
            "sweeps.threshold.setting",
            "acceptance",
            "is a section; .*acceptance.rule, acceptance.val",
        ),
        ("budget.arithmetic", ..., "budget.arithmetic is missing"),
        ("experiment.test_sets", ["magic"], "data.magic is missing"),
        ("experiment.test_sets", ["translation"], "data.translation.tests which task's models"),
        ("data.translation.tests", "arithmetic", "data.translation.*procedural"),
        ("data.translation.source", FILES, "source.train is missing"),
        (
            "data.arithmetic.source",
            {"kind": "hub", "preset": "gsm8k", "revision": "main"},
            "revision",
        ),
    ],
)
def test_a_mistake_is_named(path, value, message) -> None:
    with pytest.raises(UserError, match=message):
        parse(changed(path, value))


def test_a_swept_section_is_replaced_whole_and_its_mistakes_are_named() -> None:
    raw = changed("experiment.sweeps", ["rules", "divergences", "start"])
    params = parse(raw)
    rules, divergences, start = (params.sweeps[name] for name in params.experiment.sweeps)

    def varied(sweep: Sweep) -> list[MethodSettings]:
        row = params.methods[sweep.method]
        return [sweep.varied(row, params.distill, value)[0] for value in sweep.values]

    made = varied(rules)
    assert [(m.acceptance.rule, m.acceptance.value) for m in made] == [
        ("top_k", 1), ("top_p", 0.9), ("min_prob", 0.3), ("ratio", 0.5),
    ]  # fmt: skip
    made = varied(divergences)
    assert len({m.divergence.name for m in made}) == len(made) > 1
    assert all(m.acceptance == params.methods["skd"].acceptance for m in made)
    assert [row.student_init for row in varied(start)] == ["sft", "instruct"]
    raw["sweeps"]["rules"]["values"] = [{"rule": "top_q", "value": 0.9}]
    with pytest.raises(UserError, match=r"acceptance = top_q 0\.9: acceptance\.rule: .*'top_q'"):
        parse(raw)
    raw["sweeps"]["rules"]["values"] = [{"rule": "top_p", "mass": 0.9}]
    with pytest.raises(UserError, match=r"unknown parameter 'acceptance\.mass'"):
        parse(raw)


def test_a_setting_of_the_runs_is_swept_beside_an_unchanged_row() -> None:
    raw = changed("experiment.sweeps", ["threshold"])
    raw["sweeps"]["threshold"] |= {"setting": "distill.rollout_steps", "values": [1, 4]}
    params = parse(raw)
    sweep, row = params.sweeps["threshold"], params.methods["skd"]
    made = [sweep.varied(row, params.distill, value) for value in sweep.values]
    assert [distill.rollout_steps for _, distill in made] == [1, 4]
    assert {settings for settings, _ in made} == {row}
    raw["sweeps"]["threshold"]["values"] = [0]
    with pytest.raises(UserError, match=r"distill with rollout_steps = 0: rollout_steps: .*0"):
        parse(raw)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (5, "5"),
        ("instruct", "instruct"),
        ({"rule": "min_prob", "value": 0.3}, "min_prob 0.3"),
        ({"beta": 0.1, "name": "jsd"}, "jsd 0.1"),
        ({"rule": "top_k", "final_value": 1, "value": 25}, "top_k 25 final_value=1"),
    ],
)
def test_a_swept_value_has_a_short_form(value, text) -> None:
    assert label(value) == text


def with_test_set(**row: object) -> dict:
    raw = changed("experiment.test_sets", ["other"])
    raw["data"]["other"] = {"task": "arithmetic", "tests": "arithmetic", "source": FILES} | row
    return raw


def test_a_test_set_needs_a_test_file_alone_and_no_budget() -> None:
    row = parse(with_test_set()).data["other"]
    assert (row.tests, row.source.train) == ("arithmetic", None)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"tests": "poetry"}, "data.other.tests names 'poetry', which experiment.tasks does not"),
        ({"tests": "translation"}, "data.other.task is 'arithmetic', but the models of"),
        ({"source": FILES | {"test": None, "train": "a.csv"}}, "source.test is missing"),
    ],
)
def test_a_test_set_that_cannot_be_tested_is_named(row, message) -> None:
    with pytest.raises(UserError, match=message):
        parse(with_test_set(**row))


def test_a_row_that_is_only_tested_is_no_task() -> None:
    raw = with_test_set()
    raw["experiment"]["tasks"].append("other")
    raw["budget"]["other"] = raw["budget"]["arithmetic"]
    with pytest.raises(UserError, match=r"data\.other\.tests makes it a row that is only tested"):
        parse(raw)


def test_several_mistakes_are_told_at_once() -> None:
    raw = changed("distill.blocksize", 4)
    raw["models"]["size"] = 3
    with pytest.raises(UserError) as caught:
        parse(raw)
    assert len(str(caught.value).splitlines()) == 2


def test_a_missing_or_broken_file_is_named(tmp_path) -> None:
    with pytest.raises(UserError, match="no such parameter file"):
        load(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("a: [1")
    with pytest.raises(UserError, match="not valid YAML"):
        load(tmp_path / "params.yaml")


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("sft.student", "distill.optimisation.weights"),
        ("sft.teacher", "models.teacher_weights"),
    ],
)
def test_what_was_trained_beside_codes_is_not_put_in_them_again(first, then) -> None:
    role = first.removeprefix("sft.")
    own = {**DEFAULT["sft"][role], "weights": "nf4", "adapter": {}}
    parse(changed(first, own))
    raw = changed(first, own)
    raw["distill"]["optimisation"]["adapter"] = {}
    *parents, last = then.split(".")
    at = raw
    for name in parents:
        at = at[name]
    at[last] = "int8"
    parse(raw)
    at[last] = "nf4"
    with pytest.raises(UserError, match=rf"{first}.weights and {then} are both nf4"):
        parse(raw)


@pytest.mark.parametrize(
    ("runtime", "path", "value", "message"),
    [
        ({"processes": 13}, "report.margin", 1.0, "sft.teacher.batch_size is 12"),
        ({"processes": 8, "shard": "fsdp"}, "report.margin", 1.0, "batch_size is 12.*as many"),
        ({"processes": 2}, "models.teacher.batch_size", 1, "models.teacher.batch_size is 1"),
        ({"processes": 2, "shard": "fsdp"}, "distill.optimisation.adapter", {}, "remove one"),
        (
            {"processes": 2, "shard": "fsdp"},
            "distill.optimisation.optimiser",
            "adamw_8bit",
            "take adamw",
        ),
    ],
)
def test_what_several_processes_cannot_share_is_named(runtime, path, value, message) -> None:
    raw = changed(path, value)
    parse(raw)
    raw["runtime"] |= runtime
    with pytest.raises(UserError, match=message):
        parse(raw)


@pytest.mark.parametrize("name", names(ROOT / "profiles"))
def test_every_profile_is_valid(name) -> None:
    parse(yaml.safe_load(compose(name, ROOT / "profiles")))


def test_the_committed_parameters_are_the_embedded_profile() -> None:
    assert (ROOT / "params.yaml").read_text() == compose("embedded", ROOT / "profiles")


def test_an_unknown_profile_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"no profile 'x'.*embedded"):
        compose("x", ROOT / "profiles")


def test_canonical_text_ignores_the_order_of_keys() -> None:
    assert canonical({"b": 1, "a": [2]}) == canonical({"a": [2], "b": 1})
    assert canonical(parse(DEFAULT)) == canonical(parse(copy.deepcopy(DEFAULT)))
