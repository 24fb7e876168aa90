"""The section on other test sets: its numbers, its verdicts, and that it changes no other part."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

from skd.errors import UserError
from tests.report.conftest import built, texts

TASKS = {"arithmetic": "arithmetic"}
METHODS = {
    "sft": {"arithmetic": 50, "svamp": 70},
    "on_policy_kd": {"arithmetic": 55, "svamp": 50},
    "skd": {"arithmetic": 70, "svamp": 50},
}


def lines(root: Path, name: str) -> list[dict[str, str]]:
    with (root / "reports" / name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def root(make_tree) -> Path:
    return make_tree(METHODS, TASKS, test_sets={"svamp": "arithmetic"})


def test_each_set_has_a_table_of_all_models_with_marks_against_the_reference(root):
    text = texts(root)["test-sets"]
    shown = text.split("<details>")[0]
    rows = dict(re.findall(r"^\| \**[`*]([^|`]+?)[`*]\** \|(.*)$", shown, re.MULTILINE))
    assert set(rows) >= {"teacher", "sft", "on_policy_kd", "skd"}
    assert "▲" in rows["sft"]
    assert "?" in rows["on_policy_kd"]
    assert not re.search("[▲▼=?]", rows["skd"])
    assert "± " in rows["sft"]
    assert "arithmetic<br>exact answer %" in text
    assert "60 rows for the models of arithmetic; files else.jsonl; licence: MIT; 3 rows" in text


def test_the_conclusion_is_the_tasks_alone(root, make_tree):
    text = texts(root)["report"]
    assert "`skd` wins on arithmetic" in text
    assert "svamp" not in text


def test_a_report_without_sets_has_no_section(make_tree):
    root = make_tree({"sft": 50, "skd": 70})
    assert not [text for text in built(root).values() if "Other test sets" in text]
    assert lines(root, "tables/test_sets.csv") == []


def test_the_csv_holds_means_and_the_comparison_beside_the_primary_metric(root):
    built(root)
    found = lines(root, "tables/test_sets.csv")
    assert {row["test_set"] for row in found} == {"svamp"}
    assert {row["task"] for row in found} == {"arithmetic"}
    verdicts = {row["model"]: row["verdict"] for row in found if row["metric"] == "exact_match"}
    assert verdicts["sft"] == "worse"  # the reference is
    assert verdicts["on_policy_kd"] == "undecided"
    assert verdicts["skd"] == verdicts["teacher"] == ""
    assert not [row for row in found if row["metric"] == "stopped" and row["p"]]
    numbers = [row for row in lines(root, "results.csv") if row["task"] == "svamp"]
    assert len(numbers) == 3 * (1 + 1 + 3 + 3 * 3)  # metrics × (teacher, instruct, start, methods)


@pytest.mark.parametrize(
    ("path", "stage"),
    [
        ("metrics/prepare_tests.json", "prepare_tests"),
        ("test_sets/svamp/test.jsonl", "prepare_tests"),
        ("records/skd/svamp.jsonl", "evaluate"),
    ],
)
def test_a_missing_file_names_the_stage_to_rerun(root, path, stage):
    (root / path).unlink()
    with pytest.raises(UserError, match=f"{path}: no such file; rerun `dvc repro {stage}`"):
        built(root)


def test_a_set_that_was_not_tested_names_the_stage(root):
    path = root / "metrics" / "evaluate" / "skd.json"
    result = json.loads(path.read_text())
    result["test_sets"] = {}
    path.write_text(json.dumps(result))
    with pytest.raises(UserError, match=r"no test set 'svamp'; rerun `dvc repro evaluate`"):
        built(root)


def test_without_the_reference_there_are_means_and_no_verdicts(make_tree):
    methods = {name: METHODS[name] for name in ("sft", "on_policy_kd")}
    text = texts(make_tree(methods, TASKS, test_sets={"svamp": "arithmetic"}))["test-sets"]
    assert "`sft`" in text
    assert not re.search("[▲▼]", text)
