"""All pairs, power, known failures, the CSV tables and the HTML page."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_ind

from pipelines.schema import load
from pipelines.stages.report import build, main, provenance
from skd.errors import UserError
from skd.report.reading.experiment import ExperimentResults
from skd.report.reading.reader import read_experiment
from skd.report.sections.page import page
from skd.report.verdicts.compare import BETTER
from skd.report.verdicts.failures import CHECKS, failures
from skd.report.verdicts.pairs import all_pairs, win_count
from skd.report.verdicts.statistics import compare, seed_interval, seeds_needed

METHODS = {"sft": 50, "on_policy_kd": 60, "skd": 70}


def read(root: Path) -> ExperimentResults:
    params = load(root / "params.yaml")
    experiment = params.experiment
    tested = {name: str(params.data[name].tests) for name in experiment.test_sets}
    return read_experiment(root, experiment.tasks, experiment.methods, experiment.seeds, tested)


def found(root: Path) -> list[tuple[str, str]]:
    return [(failure.method, failure.name) for failure in failures(read(root))]


def edit_json(path: Path, change) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def edit_log(root: Path, method: str, column: str, values) -> None:
    path = root / "logs" / "distill" / method / "summarization.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row[column] = values(int(row["step"]))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def edit_outputs(root: Path, name: str, model: str, output, task: str = "summarization") -> None:
    path = root / "records" / name / f"{task}.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for i, row in enumerate(rows):
        if row["model"] == model:
            row["output"] = output(i, row["output"])
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def sheet(root: Path, name: str) -> list[dict[str, str]]:
    with (root / "reports" / "tables" / name).open(newline="") as file:
        return list(csv.DictReader(file))


# ---------------------------------------------------------------------- pairs
def test_records_count_every_pair_once_from_both_sides(make_tree):
    run = read(make_tree(METHODS, tasks={"a": "summarization", "b": "translation"}))
    pairs = all_pairs(run, resamples=300, seed=0)
    assert len(pairs) == 2 * 3
    for task in (None, "a", "b"):
        records = [win_count(pairs, m, task) for m in METHODS]
        assert sum(r.wins for r in records) == sum(r.losses for r in records)
        assert {sum(vars(r).values()) for r in records} == {4 if task is None else 2}
    assert win_count(pairs, "skd").wins == 4
    assert win_count(pairs, "sft").losses == 4


def test_equal_methods_tie_and_a_planted_effect_is_found():
    """100 simulated pairs each; the verdict's two conditions, without a correction."""
    rng = np.random.default_rng(0)

    def better(effect: float) -> bool:
        ability = rng.normal(0, 8, 80)
        ours, theirs = (
            mean + rng.normal(0, 1, (3, 1)) + ability + rng.normal(0, 4, (3, 80))
            for mean in (50 + effect, 50)
        )
        made = compare(ours, theirs, resamples=300, seed=0)
        return made.larger_p < 0.05 and not made.low <= 0 <= made.high

    assert sum(better(0.0) for _ in range(100)) <= 5
    assert sum(better(6.0) for _ in range(100)) >= 95


# ---------------------------------------------------------------------- power
def test_the_seeds_needed_see_the_difference_in_four_of_five_repetitions():
    rng = np.random.default_rng(1)
    observed = [rng.normal(mean, 2.0, (400, 1)) for mean in (52.0, 50.0)]
    needed = seeds_needed(*observed)
    assert needed == pytest.approx(17, abs=3)  # tables of the t test: d = 1, 80 %
    seen = [
        ttest_ind(rng.normal(52, 2, needed), rng.normal(50, 2, needed)).pvalue < 0.05
        for _ in range(2000)
    ]
    assert np.mean(seen) == pytest.approx(0.8, abs=0.08)


def test_seeds_needed_knows_its_limits():
    one = np.array([[1.0, 2.0]])
    assert seeds_needed(one, one) is None  # no variance to be had
    equal = np.array([[1.0], [3.0]])
    assert seeds_needed(equal, equal) is None
    assert seeds_needed(np.full((3, 2), 5.0), np.full((3, 2), 4.0)) == 2


# -------------------------------------------------------------------- failures
def test_a_healthy_run_has_no_failure(make_tree):
    assert found(make_tree(METHODS)) == []


@pytest.mark.parametrize(
    ("acceptance", "name"),
    [
        (0.0, "teacher overrides almost everything"),
        (30.0, "teacher overrides almost everything"),
        (99.9, "almost nothing is replaced"),
    ],
)
def test_acceptance_failures_name_the_parameter(make_tree, acceptance, name):
    (failure,) = failures(read(make_tree(METHODS, acceptance=acceptance)))
    assert (failure.method, failure.name) == ("skd", name)
    assert "methods.skd.acceptance" in failure.remedy
    assert str(acceptance) in failure.numbers


def test_a_gradient_spike_is_an_unstable_signal(make_tree):
    root = make_tree(METHODS)
    edit_log(root, "sft", "grad_norm", lambda step: 90.0 if step == 120 else 1.0)
    assert found(root) == [("sft", "unstable signal")]


def test_a_validation_loss_that_rises_again_is_overfitting(make_tree):
    root = make_tree(METHODS)
    edit_log(root, "sft", "validation_loss", lambda step: 1.0 + abs(step - 100) / 500)
    assert found(root) == [("sft", "overfitting")]


@pytest.mark.parametrize(
    ("output", "name"),
    [
        (lambda _i, text: text * 3, "length explosion"),
        (lambda i, _text: f"{i}", "early end of sequence"),
        (lambda _i, _text: "the same text every time", "collapse of diversity"),
    ],
)
def test_broken_outputs_are_named(make_tree, output, name):
    root = make_tree(METHODS)
    edit_outputs(root, "on_policy_kd", "on_policy_kd", output)
    assert found(root) == [("on_policy_kd", name)]


def test_outputs_that_never_end_are_a_length_explosion(make_tree):
    root = make_tree(METHODS)

    def change(result):
        for scores in result["tasks"]["summarization"]["models"]["skd"].values():
            scores["stopped"] = 40.0

    edit_json(root / "metrics" / "evaluate" / "skd.json", change)
    assert found(root) == [("skd", "length explosion")]


def test_a_teacher_below_its_untrained_student_is_degenerate(make_tree):
    root = make_tree(METHODS)

    def change(result):
        models = result["tasks"]["summarization"]["models"]
        models["teacher"]["all"]["rouge_l"] = 10.0

    edit_json(root / "metrics" / "evaluate" / "starts.json", change)
    assert found(root) == [(method, "degenerate teacher") for method in METHODS]


AWAY = {"sft": 85, "on_policy_kd": {"summarization": 85, "else": 50}, "skd": 85}


def abroad(make_tree, methods=AWAY) -> Path:
    return make_tree(methods, test_sets={"else": "summarization"})


def test_a_student_that_is_good_at_home_alone_does_not_carry_over(make_tree):
    root = abroad(make_tree, AWAY | {"on_policy_kd": {"summarization": 85, "else": 30}})
    (failure,) = failures(read(root))
    assert (failure.task, failure.method) == ("else", "on_policy_kd")
    assert failure.name == "does not carry over"
    shares = [int(share) for share in re.findall(r"(\d+) %", failure.numbers)]
    assert shares == pytest.approx([100 * 30 / 95, 100 * 85 / 95], abs=3)
    assert "summarization" in failure.numbers
    assert "`data.summarization.source`" in failure.remedy


@pytest.mark.parametrize(
    ("home", "away"),
    [(85, 50), (60, 20), (30, 30)],  # half is left; it was never good; nor different
)
def test_a_student_that_lost_no_more_than_it_had_is_not_named(make_tree, home, away):
    planted = {"summarization": home, "else": away}
    assert found(abroad(make_tree, AWAY | {"on_policy_kd": planted})) == []


def test_no_student_is_blamed_for_a_set_that_its_teacher_cannot_do(make_tree):
    root = abroad(make_tree, {name: {"summarization": 85, "else": 30} for name in AWAY})
    assert {name for _, name in found(root)} == {"does not carry over"}

    def change(result):
        result["test_sets"]["else"]["models"]["teacher"]["all"]["rouge_l"] = 35.0

    edit_json(root / "metrics" / "evaluate" / "starts.json", change)
    assert found(root) == []


def test_broken_outputs_are_named_on_a_set_unless_its_task_showed_them(make_tree):
    root = abroad(make_tree)
    edit_outputs(root, "skd", "skd", lambda _i, text: text * 3, "else")
    assert [(f.task, f.method, f.name) for f in failures(read(root))] == [
        ("else", "skd", "length explosion")
    ]
    edit_outputs(root, "skd", "skd", lambda _i, text: text * 3)
    assert [(f.task, f.method, f.name) for f in failures(read(root))] == [
        ("summarization", "skd", "length explosion")
    ]


def test_what_training_alone_tells_is_not_told_of_a_set(make_tree):
    root = abroad(make_tree)
    edit_log(root, "sft", "grad_norm", lambda step: 90.0 if step == 120 else 1.0)
    assert found(root) == [("sft", "unstable signal")]


def test_every_check_has_a_test_here():
    text = Path(__file__).read_text(encoding="utf-8")
    assert all(f'"{name}"' in text for name in CHECKS)


# --------------------------------------------------------------------- output
def test_the_tables_hold_the_numbers_of_the_files(make_tree):
    root = make_tree(METHODS, n=20)
    main(["--root", str(root)])
    run = read(root)

    task = run.tasks[0]
    for row in sheet(root, "scores.csv"):
        wanted = seed_interval(task.models[row["model"]].values(row["metric"]))
        assert float(row["mean"]) == wanted.mean
        assert (row["half_width"] or None) == (
            None if wanted.half_width is None else str(wanted.half_width)
        )
    verdicts = {(row["method"], row["other"]): row for row in sheet(root, "comparisons.csv")}
    assert len(verdicts) == 3
    ours = verdicts["sft", "skd"]
    means = [task.models[m].matrix(task.primary, task.ids).mean() for m in ("sft", "skd")]
    assert float(ours["difference"]) == pytest.approx(means[0] - means[1])
    assert ours["verdict"] != BETTER
    assert {row["method"] for row in sheet(root, "costs.csv")} == set(METHODS)


def test_the_page_needs_no_network_and_shows_what_the_report_shows(make_tree):
    root = make_tree(METHODS, n=20, acceptance=30.0)
    main(["--root", str(root)])
    html = (root / "reports" / "report.html").read_text(encoding="utf-8")
    text = (root / "reports" / "report.md").read_text(encoding="utf-8")
    assert not re.search(r'(src|href)="https?:', html)
    assert not re.search(r'src="(?!data:)', html)
    assert html.count("<h2>") == len(re.findall(r"^## ", text, re.MULTILINE))
    assert html.count('src="data:image/png;base64,') == text.count("![")
    assert "teacher overrides almost everything" in html
    assert "<b>" not in html.split("<h2>Sample outputs</h2>")[1]  # a dialogue's own markup


def test_markup_of_the_report_becomes_markup():
    html = page("# Title\n\n| a | b |\n| :-- | --: |\n| 1 | **2** |\n", {})
    assert "<title>Title</title>" in html
    assert "<td" in html
    assert "<strong>2</strong>" in html


def test_a_sweep_that_was_not_run_is_named_with_its_stage(make_tree):
    root = make_tree(METHODS, n=20)
    edit_json(root / "metrics" / "sweep.json", lambda result: result["sweeps"].clear())
    params = load(root / "params.yaml")
    with pytest.raises(UserError, match=r"no sweep 'threshold'; rerun `dvc repro sweep`"):
        build(params, root, provenance(params, root))


def test_sweeps_and_the_probe_stand_in_the_report(make_tree):
    root = make_tree(METHODS, n=20)
    main(["--root", str(root)])
    part = (root / "reports" / "report.md").read_text(encoding="utf-8").split("## Analyses")[1]
    assert re.search(r"\| 25 \| 75\.3 ± 1\.4 \| 0\.500 \| 70\.0 \| 0 \| 1,200 \| 150,000", part)
    assert "| *untrained student, SFT start* | 0.70 | 0.70 | 0.70 | 0.60 | 80 | 0 / 2 / 9 |" in part
    assert "| rank 0 | rank 1 | rank 2–4 | rank 5–9 | rank 10–24 | rank 25–99 | rank 100+ |" in part
    assert "| 60.0 | 20.0 | 8.0 | 6.0 | 4.0 | 1.5 | 0.5 | 0+: 90 · 8+: 70 |" in part
    assert "| 60 | 2.50 | 1.50 | 60 | 2.50 | 1.20 | 60 | 2.50 | 1.20 | 0.25 | 4 of 4 |" in part
    rows = sheet(root, "sweeps.csv")
    assert {(row["value"], row["seed"]) for row in rows} == {
        (value, str(seed)) for value in ("1", "25") for seed in (20, 21, 22)
    }
    rows = sheet(root, "proposals.csv")
    assert len(rows) == 7 + 2
    assert {row["measure"] for row in rows} == {"share_by_rank", "accepted_by_place"}
    speeds = {row["way"]: float(row["against_plain"]) for row in sheet(root, "drafts.csv")}
    assert speeds == {"greedy": 1.5, "sampled": 1.2, "rejection": 1.2, "assisted": 0.25}


def test_a_pair_that_the_library_refuses_has_its_reason_in_the_report(make_tree):
    root = make_tree(METHODS, n=20)

    def change(result):
        for models in result["tasks"].values():
            draft = models["student_init"]["draft"]
            draft |= {"assisted_equal": None, "assisted_reason": "two tokenizers"}
            draft["ways"]["assisted"]["tokens_per_cpu_second"] = None

    edit_json(root / "metrics" / "probe.json", change)
    main(["--root", str(root)])
    text = (root / "reports" / "report.md").read_text(encoding="utf-8")
    assert "| 1.20 | – | – |\n\nNo assisted generation: two tokenizers" in text
    assert sheet(root, "drafts.csv")[-1]["against_plain"] == ""


def test_the_course_of_training_has_a_begin_a_middle_and_an_end(make_tree):
    root = make_tree(METHODS, n=20)
    edit_log(root, "skd", "acceptance_rate", lambda step: step)
    edit_log(root, "sft", "validation_kl", lambda step: "")
    edit_log(root, "skd", "validation_kl", lambda step: 0.5 if step == 240 else "")
    main(["--root", str(root)])
    rows = {(row["method"], row["part"]): row for row in sheet(root, "course.csv")}
    assert "sft" not in {method for method, _ in rows}  # nothing of the two is in its log
    rates = [float(rows["skd", part]["acceptance_rate"]) for part in ("begin", "middle", "end")]
    assert rates == [14.0, 122.0, 230.0]  # steps 4…24, 100…144, 220…240
    assert [rows["skd", p]["validation_kl"] for p in ("begin", "middle", "end")] == ["", "", "0.5"]
    text = (root / "reports" / "report.md").read_text(encoding="utf-8")
    assert "validation KL, begin" not in text  # a column that no method fills
    assert "| `skd` | 14.0 | 122.0 | 230.0 | – | 0.500 |" in text
