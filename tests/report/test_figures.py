"""Every figure has its numbers beside it, and they are those of the run."""

from __future__ import annotations

import csv
import io
import re

import pytest

from pipelines.schema import load
from pipelines.stages.report import main
from skd.report.figures.curves import curve
from skd.report.figures.draw import figures
from skd.report.reading.experiment import ExperimentResults
from skd.report.reading.reader import read_experiment

METHODS = {"sft": 50, "on_policy_kd": 60, "skd": 70}
TASKS = {"a": "summarization", "b": "translation"}


@pytest.fixture
def run(make_tree) -> ExperimentResults:
    root = make_tree(METHODS, TASKS, n=10)
    experiment = load(root / "params.yaml").experiment
    return read_experiment(root, experiment.tasks, experiment.methods, experiment.seeds)


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def close(value: float):
    return pytest.approx(value, rel=1e-5)


def test_each_picture_has_a_table_and_the_report_links_it_below(make_tree):
    root = make_tree(METHODS, TASKS, n=10)
    main(["--root", str(root)])
    folder = root / "reports" / "figures"
    stems = {path.stem for path in folder.glob("*.png")}
    assert stems == {"comparison", "curves-a", "curves-b", "convergence", "acceptance"}
    assert {path.name for path in folder.iterdir()} == {
        f"{stem}.{kind}" for stem in stems for kind in ("png", "csv")
    }
    text = (root / "reports" / "report.md").read_text(encoding="utf-8")
    linked = re.findall(r"!\[[^]]*]\(figures/(.+)\.png\)\n\n\[.*]\(figures/(.+)\.csv\)", text)
    assert {png for png, _ in linked} == stems
    assert all(png == table for png, table in linked)


def test_the_comparison_has_a_row_per_mark(run):
    found = rows(figures(run, "skd")["comparison"].csv)
    assert len(found) == len(TASKS) * (len(METHODS) + 2)
    by_name = {(row["task"], row["model"]): row for row in found}
    for task in run.tasks:
        values = task.models["skd"].values(task.primary)
        row = by_name[task.name, "skd"]
        assert [float(row[f"seed_{seed}"]) for seed in run.seeds] == close(values)
        assert float(row["mean"]) == close(sum(values) / len(values))
        assert float(row["half_width"]) > 0
        assert row["metric"] == task.primary
        assert by_name[task.name, "teacher"]["half_width"] == ""


def test_the_curves_have_a_row_per_point(run):
    drawn = figures(run, "skd")
    for task in run.tasks:
        found = rows(drawn[f"curves-{task.name}"].csv)
        for column, smooth in (("loss", True), ("validation_kl", False)):
            for method, training in task.training.items():
                steps, values = curve(training, column, smooth)
                mine = [r for r in found if (r["curve"], r["method"]) == (column, method)]
                assert [int(row["step"]) for row in mine] == list(steps)
                assert [float(row["mean"]) for row in mine] == close(list(values.mean(0)))
                assert [float(row["lowest"]) for row in mine] == close(list(values.min(0)))
                assert [float(row["highest"]) for row in mine] == close(list(values.max(0)))
    found = rows(drawn["acceptance"].csv)
    assert {(row["task"], row["method"]) for row in found} == {("a", "skd"), ("b", "skd")}


def test_one_seed_leaves_the_interval_empty(make_tree):
    root = make_tree(METHODS, seeds=(7,), n=5)
    experiment = load(root / "params.yaml").experiment
    run = read_experiment(root, experiment.tasks, experiment.methods, experiment.seeds)
    found = rows(figures(run, "skd")["comparison"].csv)
    assert {row["half_width"] for row in found} == {""}
    assert all(row["seed_7"] for row in found if row["model"] in METHODS)
