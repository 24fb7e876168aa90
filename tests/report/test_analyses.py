"""Sections on equal budgets and on other students, from files of their shape."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from pipelines.stages.report import main
from skd.errors import UserError
from skd.models.settings import ProceduralModel
from skd.report.reading.analyses import Analyses, read_analyses
from skd.report.sections.fairness import COLUMNS, fairness_rows, section
from skd.report.sections.sheets import csv_text
from skd.report.verdicts.budgets import budget_verdicts
from skd.results.analyses import (
    BudgetRun,
    BudgetRuns,
    FairnessResult,
    ProbeResult,
    ScalingResult,
    SweepResult,
    TaskFairness,
    TuningTry,
)
from skd.results.evaluation import OutputRecord
from skd.results.files import write_result, write_results
from skd.results.pair import ModelSize
from skd.results.runs import Validation
from skd.results.took import Took
from tests.report.conftest import built, texts, trained_run, weighed

SEEDS, EXAMPLES = (20, 21), 80


def budget_runs(metric: float, steps: int) -> BudgetRuns:
    run = trained_run(metric, student_sampled_tokens=100)
    return BudgetRuns(steps, {str(seed): BudgetRun(run, {"rouge_l": metric}) for seed in SEEDS})


def plant(root: Path, means: dict[tuple[str, int], float]) -> Analyses:
    """The equal budgets of `skd` and `sft`; (method, steps) -> mean. Their files are in `root`."""
    rng = np.random.default_rng(0)
    ability = rng.normal(0, 10, EXAMPLES)
    records = []
    for (method, steps), mean in means.items():
        for seed in SEEDS:
            scores = mean + ability + rng.normal(0, 2, EXAMPLES)
            records += [
                OutputRecord(
                    method, seed, f"test-{i}", "text", True, 3, {"rouge_l": float(score)}, steps
                )
                for i, score in enumerate(scores)
            ]
    write_results(root / "fairness" / "summarization.jsonl", records)
    steps_of = {"steps": (100, 100), "tokens": (100, 100), "seconds": (300, 100)}
    views = {
        view: {
            "sft": budget_runs(means["sft", sft], sft),
            "skd": budget_runs(means["skd", skd], skd),
        }
        for view, (sft, skd) in steps_of.items()
    }
    tries = [
        TuningTry(method, rate, "acceptance.value", "1", 50.0 + rate, rate == 2.0)
        for method in ("sft", "skd")
        for rate in (1.0, 2.0)
    ]
    task = TaskFairness("summarization", tries, views)
    result = FairnessResult(Took(9.0), list(SEEDS), {"summarization": task})
    write_result(root / "metrics" / "fairness.json", result)
    write_result(root / "metrics" / "sweep.json", SweepResult(Took(0.0), {}))
    write_result(root / "metrics" / "probe.json", ProbeResult(Took(0.0), 20, 1, {}))
    return read_analyses(root, [], [])


def test_a_lead_at_equal_steps_can_end_at_equal_seconds(tmp_path: Path) -> None:
    analyses = plant(tmp_path, {("sft", 100): 50.0, ("skd", 100): 60.0, ("sft", 300): 70.0})
    verdicts = budget_verdicts(analyses, "skd", 2.0)
    words = {view: against.verdicts[0].word for (_, view), against in verdicts.items()}
    assert words == {"steps": "better", "tokens": "better", "seconds": "worse"}
    text = section(analyses, verdicts, "skd")
    row = next(line for line in text.splitlines() if line.startswith("| `sft`"))
    assert "50.0 / 50.0 ▼ | 100 |" in row
    assert "70.0 / 70.0 ▲ | 300 |" in row


def test_the_sheet_can_be_recomputed_from_the_records(tmp_path: Path) -> None:
    analyses = plant(tmp_path, {("sft", 100): 50.0, ("skd", 100): 52.0, ("sft", 300): 55.0})
    verdicts = budget_verdicts(analyses, "skd", 2.0)
    text = csv_text(COLUMNS, fairness_rows(analyses, verdicts))
    rows = {(r["view"], r["method"]): r for r in csv.DictReader(io.StringIO(text))}
    scores: dict[tuple[str, int], list[list[float]]] = {}
    lines = (tmp_path / "fairness" / "summarization.jsonl").read_text().splitlines()
    for seed in SEEDS:
        by_run: dict[tuple[str, int], dict[str, float]] = {}
        for record in map(json.loads, lines):
            if record["seed"] == seed:
                own = by_run.setdefault((record["model"], record["steps"]), {})
                own[record["id"]] = record["scores"]["rouge_l"]
        for key, values in by_run.items():
            scores.setdefault(key, []).append([values[i] for i in sorted(values)])
    expected = np.mean(scores["skd", 100]) - np.mean(scores["sft", 300])
    assert float(rows["seconds", "sft"]["difference"]) == pytest.approx(expected)


def test_missing_records_are_named_with_their_stage(tmp_path: Path) -> None:
    plant(tmp_path, {("sft", 100): 50.0, ("skd", 100): 52.0, ("sft", 300): 55.0})
    (tmp_path / "fairness" / "summarization.jsonl").unlink()
    with pytest.raises(UserError, match=r"fairness/summarization.jsonl.*dvc repro fairness"):
        read_analyses(tmp_path, [], [])


def test_nothing_asked_is_no_section(make_tree) -> None:
    root = make_tree({"sft": 45, "skd": 62})
    text = texts(root)["analyses"]
    assert "Equal tuning" not in text
    assert "Students of other sizes" not in text


def test_other_students_stand_beside_the_own(make_tree) -> None:
    root = make_tree({"sft": 45, "skd": 62})
    params = (root / "params.yaml").read_text()
    raw = {"narrow": {"kind": "procedural", "hidden_size": 16, "layers": 1, "heads": 2, "steps": 5}}
    settings = yaml.safe_load(params)
    settings["experiment"]["students"] = ["narrow"]
    settings["scaling"] |= {
        "students": raw, "methods": ["skd"], "tasks": ["summarization"], "seeds": [20],
    }  # fmt: skip
    (root / "params.yaml").write_text(yaml.safe_dump(settings))
    result = ScalingResult(
        took=Took(40.0),
        student=ProceduralModel(**raw["narrow"]),
        size=ModelSize("LlamaForCausalLM", 12_345, 1, 16, 800),
        kinds={"summarization": "summarization"},
        starts={"summarization": {"20": Validation(31.5)}},
        runs={"summarization": {"skd": {"20": trained_run(44.5)}}},
    )
    write_result(root / "metrics" / "scaling" / "narrow.json", result)
    text = built(root)["analyses"]
    assert "| `narrow` | 12,345 | 31.5 | 44.5 |" in text
    sheet = (root / "reports" / "tables" / "students.csv").read_text()
    assert "narrow,12345,1,16,summarization,skd,20,44.5" in sheet


def take(root: Path, seconds: dict[str, float]) -> None:
    """Let a student of each method take so long."""
    for method, taken in seconds.items():
        path = root / "metrics" / "distill" / f"{method}.json"
        result = json.loads(path.read_text())
        for run in result["tasks"]["summarization"].values():
            run["cost"]["seconds"] = taken
        path.write_text(json.dumps(result))


def use(root: Path) -> list[str]:
    """The cells of the row that says what to use."""
    text = texts(root)["report"].split("## What to use")[1]
    row = next(line for line in text.splitlines() if line.startswith("| summarization"))
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_the_cheapest_of_those_that_are_not_inferior_is_named(make_tree) -> None:
    root = make_tree({"sft": 62, "on_policy_kd": 40, "skd": 62}, seeds=range(20, 32), n=200)
    set_margin(root, 4.0)
    take(root, {"sft": 5.0, "on_policy_kd": 1.0, "skd": 20.0})
    cells = use(root)
    assert cells[1].startswith("`sft`")
    assert cells[2] == "`sft`, `skd`"
    assert cells[4] == "5.0"


def test_the_cheapest_that_is_named_is_never_inferior(make_tree) -> None:
    """It costs least and lies 6 points below: three seeds may not tell, so it is not named."""
    root = make_tree({"sft": 56, "on_policy_kd": 40, "skd": 62})
    take(root, {"sft": 1.0, "on_policy_kd": 1.0, "skd": 20.0})
    cells = use(root)
    assert cells[1].startswith("`skd`")
    assert "`sft`" not in cells[2]
    evidence = weighed(root)
    table = evidence.of("summarization")
    (choice,) = evidence.choices
    for name in choice.good:
        assert table.to_best[name].low > -evidence.margin
    assert choice.cheapest is None or choice.cheapest in table.not_inferior()


def set_margin(root: Path, margin: float) -> None:
    settings = yaml.safe_load((root / "params.yaml").read_text())
    settings["report"]["margin"] = margin
    (root / "params.yaml").write_text(yaml.safe_dump(settings))


def test_no_margin_is_an_error(make_tree) -> None:
    root = make_tree({"sft": 45, "skd": 62}, n=5)
    set_margin(root, 0.0)
    with pytest.raises(UserError, match=r"report\.margin"):
        main(["--root", str(root)])


def test_many_names_are_told_by_those_that_are_missing(make_tree) -> None:
    names = ("sft", "seq_kd", "supervised_kd", "imit_kd", "two_stage_kd", "mixed_skd", "skd")
    root = make_tree(dict.fromkeys(names, 62) | {"on_policy_kd": 20})
    assert use(root)[3] == "all but `on_policy_kd`"
    headline = texts(root)["report"].split("## Does `skd` win?")[1]
    assert "undecided against 5 of 6 baselines" in headline


def test_a_method_that_is_good_on_all_tasks_is_named_for_all(make_tree) -> None:
    tasks = {"a": "summarization", "b": "translation"}
    methods = {"sft": 40, "seq_kd": {"a": 75, "b": 40}, "imit_kd": {"a": 40, "b": 75}, "skd": 74}
    root = make_tree(methods, tasks, seeds=range(20, 32), n=200)
    set_margin(root, 5.0)
    take_all = {"sft": 1.0, "seq_kd": 2.0, "imit_kd": 2.0, "skd": 9.0}
    for method, seconds in take_all.items():
        path = root / "metrics" / "distill" / f"{method}.json"
        result = json.loads(path.read_text())
        for runs in result["tasks"].values():
            for run in runs.values():
                run["cost"]["seconds"] = seconds
        path.write_text(json.dumps(result))
    text = texts(root)["report"]
    assert "**Use `seq_kd` on a and `imit_kd` on b.**" in text
    assert "One method for all tasks: `skd` closes" in text
    assert "on every task the best leads it by less than 5 points" in text
