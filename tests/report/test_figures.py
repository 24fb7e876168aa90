"""Every figure has its numbers beside it, and they are those of the run."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
from matplotlib.text import Text

from skd.report.figures.convergence import convergence, every_method, shown_methods
from skd.report.figures.cost import front
from skd.report.figures.curves import curve
from skd.report.figures.draw import figures
from tests.report.conftest import built, read, weighed

METHODS = {"sft": 50, "on_policy_kd": 60, "skd": 70}
TASKS = {"a": "summarization", "b": "translation"}


@pytest.fixture
def root(make_tree) -> Path:
    return make_tree(METHODS, TASKS, n=10)


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def close(value: float):
    return pytest.approx(value, rel=1e-5)


def test_each_picture_has_a_table_and_the_report_links_it_below(root):
    text = "\n".join(built(root).values())
    folder = root / "reports" / "figures"
    stems = {path.stem for path in folder.glob("*.png")}
    by_task = {f"{name}-{task}" for name in ("curves", "methods") for task in TASKS}
    assert stems == {"comparison", "cost", "convergence", "acceptance"} | by_task
    assert {path.name for path in folder.iterdir()} == {
        f"{stem}.{kind}" for stem in stems for kind in ("png", "csv")
    }
    linked = re.findall(r"!\[[^]]*]\(.*figures/(.+)\.png\)\n\n\[.*]\(.*figures/(.+)\.csv\)", text)
    assert {png for png, _ in linked} == stems
    assert all(png == table for png, table in linked)


def test_the_comparison_has_a_row_per_mark(root):
    evidence = weighed(root)
    found = rows(figures(read(root), evidence)["comparison"].csv)
    assert len(found) == len(TASKS) * (len(METHODS) - 1)
    for row in found:
        verdict = evidence.of(row["task"]).against_reference[row["method"]].mirrored()
        made = verdict.comparison
        assert float(row["difference"]) == close(made.difference)
        assert (float(row["low"]), float(row["high"])) == close((made.low, made.high))
        assert row["verdict"] == verdict.word
        assert (row["verdict"] == "better") == (float(row["low"]) > 0)


def test_the_front_holds_what_no_method_beats_in_cost_and_score():
    places = {"cheap": (1.0, 10.0), "dear": (9.0, 30.0), "poor": (5.0, 9.0), "even": (5.0, 20.0)}
    assert front(places) == ["cheap", "even", "dear"]
    for name in set(places) - {"cheap", "even", "dear"}:
        x, y = places[name]
        assert any(a <= x and b >= y for other, (a, b) in places.items() if other != name)


def test_few_lines_show_the_convergence_and_no_two_names_overlap(make_tree):
    kinds = ("sft", "supervised_kd", "seq_kd", "on_policy_kd", "on_policy_hard", "imit_kd",
             "mixed_skd", "two_stage_kd", "skd", "skd_mixed_loss")  # fmt: skip
    root = make_tree({kind: 60 + 0.01 * place for place, kind in enumerate(kinds)}, n=5)
    (task,) = read(root).tasks
    assert len(shown_methods(task, "skd")) <= 6
    figure, _ = convergence(read(root), "skd")
    figure.draw_without_rendering()
    for axes in figure.axes:
        boxes = [Text.get_window_extent(text) for text in axes.texts]  # without their lines
        assert len(boxes) == len(shown_methods(task, "skd"))
        assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))


def test_a_run_that_is_validated_once_is_a_point(root):
    """A line of one point would leave the panel empty."""
    (task, *_) = read(root).tasks
    once = {}
    for method, training in task.training.items():
        last = max(row.step for row in training.log if row.validation_metric is not None)
        log = [replace(r, validation_metric=None) if r.step < last else r for r in training.log]
        once[method] = replace(training, log=log)
    for training, marked in ((task.training, False), (once, True)):
        figure, drawn = every_method(replace(task, training=training), "skd")
        panels = [axes for axes in figure.axes if axes.get_visible()]
        assert [len(line.get_xdata()) == 1 for axes in panels for line in axes.lines] == [
            marked
        ] * (2 * len(training))
        assert all((line.get_marker() == "o") == marked for axes in panels for line in axes.lines)
        assert (len(drawn) == len(training)) == marked


def test_the_curves_have_a_row_per_point(root):
    run = read(root)
    drawn = figures(run, weighed(root))
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
    found = rows(figures(read(root), weighed(root))["comparison"].csv)
    assert {(row["low"], row["high"], row["verdict"]) for row in found} == {("", "", "")}
    assert all(row["difference"] for row in found)
