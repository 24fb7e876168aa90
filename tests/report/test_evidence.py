"""All pairs, power, known failures, the CSV tables and the HTML page."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

from pipelines.schema import load
from pipelines.stages.report import build, main, provenance
from skd.errors import UserError
from skd.report.sections.page import page
from skd.report.verdicts.failures import CHECKS, failures
from skd.report.verdicts.statistics import seed_interval
from skd.report.verdicts.tables import win_count
from tests.report.conftest import built, read, weighed

METHODS = {"sft": 50, "on_policy_kd": 60, "skd": 70}


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
    evidence = weighed(make_tree(METHODS, tasks={"a": "summarization", "b": "translation"}))
    for tables in ([evidence.of("a"), evidence.of("b")], [evidence.of("a")], [evidence.of("b")]):
        records = [win_count(tables, m) for m in METHODS]
        assert sum(r.better for r in records) == sum(r.worse for r in records)
        assert {sum(vars(r).values()) for r in records} == {2 * len(tables)}
    both = [evidence.of("a"), evidence.of("b")]
    assert win_count(both, "skd").better == 4
    assert win_count(both, "sft").worse == 4


def test_the_matrix_repeats_the_words_of_the_main_table(make_tree):
    methods = {"sft": 55, "seq_kd": 57, "imit_kd": 58, "on_policy_kd": 59, "skd": 60}
    evidence = weighed(make_tree(methods | {"skd_instruct": 50, "sft_instruct": 49}))
    for metric in ("rouge_l", "valid"):
        table = evidence.tables["summarization"][metric]
        for against in table.planned:
            for verdict in against.verdicts:
                assert table.words[verdict.method, verdict.other] == verdict.word
                assert table.words[verdict.other, verdict.method] == verdict.mirrored().word
    assert {against.reference for against in table.planned} == {"skd", "skd_instruct"}


def test_words_and_intervals_never_disagree(make_tree):
    methods = {"sft": 40, "seq_kd": 58, "imit_kd": 60, "on_policy_kd": 61, "skd": 61}
    evidence = weighed(make_tree(methods), margin=4.0)
    tables = evidence.tables["summarization"].values()
    assert len({verdict.word for table in tables for verdict in table.pairs}) >= 3
    for table in evidence.tables["summarization"].values():
        for verdict in table.pairs:
            made, margin = verdict.comparison, evidence.margin
            expected = "undecided"
            if made.low > 0 or made.high < 0:
                expected = "better" if made.low > 0 else "worse"
            elif -margin < made.low and made.high < margin:
                expected = "equal"
            assert verdict.word == expected
            assert (made.p < 0.05) == (expected in ("better", "worse"))
            assert made.low <= made.difference <= made.high


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
    assert found(root) == []  # as sure as its teacher, and its metric still rises
    edit_log(root, "sft", "validation_metric", lambda step: 50.0 - abs(step - 180) / 20)
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
    rows = [row for row in sheet(root, "comparisons.csv") if row["metric"] == task.primary]
    assert len(rows) == 3
    (ours,) = (row for row in rows if (row["method"], row["other"]) == ("sft", "skd"))
    means = [sum(task.models[m].values(task.primary)) / 3 for m in ("sft", "skd")]
    assert float(ours["difference"]) == pytest.approx(means[0] - means[1])
    assert ours["verdict"] == "worse"
    assert float(ours["high"]) < 0
    assert {row["method"] for row in sheet(root, "costs.csv")} == set(METHODS)


def test_the_page_needs_no_network_and_shows_what_the_report_and_its_details_show(make_tree):
    root = make_tree(METHODS, n=20, acceptance=30.0)
    pages = built(root)
    html = (root / "reports" / "report.html").read_text(encoding="utf-8")
    assert not re.search(r'(src|href)="https?:', html)
    assert not re.search(r'src="(?!data:)', html)
    texts = "\n".join(pages.values())
    assert html.count("<h2>") == len(re.findall(r"^## ", texts, re.MULTILINE))
    assert html.count('src="data:image/png;base64,') == texts.count("![")
    assert "teacher overrides almost everything" in html
    assert "<b>" not in html.split('id="samples"')[1]  # a dialogue's own markup
    for target in re.findall(r'href="([^"]+)"', html):
        if target.startswith("#"):
            assert f'<div id="{target[1:]}">' in html
        else:
            assert (root / "reports" / target).exists(), target


def test_markup_of_the_report_becomes_markup():
    html = page("# Title\n\n| a | b |\n| :-- | --: |\n| 1 | **2** |\n", {}, {})
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
    part = built(root)["analyses"]
    against = r"[-+.\d]+ … [-+.\d]+ ."
    wanted = rf"\| 25 \| 75\.3 ± 1\.4 \| {against} \| 0\.500 \| 70\.0 \| 0 \| 1,200 \| 150,000"
    assert re.search(wanted, part)
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
            draft["assisted_reason"] = "two tokenizers"
            draft["ways"]["assisted"] |= {"tokens_per_cpu_second": None, "equal": None}

    edit_json(root / "metrics" / "probe.json", change)
    text = built(root)["analyses"]
    assert "| 1.20 | – | 4 of 4 | – |\n\nNo assisted generation: two tokenizers" in text
    assert sheet(root, "drafts.csv")[-1]["against_plain"] == ""


def test_the_course_of_training_has_a_begin_a_middle_and_an_end(make_tree):
    root = make_tree(METHODS, n=20)
    edit_log(root, "skd", "acceptance_rate", lambda step: step)
    edit_log(root, "sft", "validation_kl", lambda step: "")
    edit_log(root, "skd", "validation_kl", lambda step: 0.5 if step == 240 else "")
    text = built(root)["analyses"]
    rows = {(row["method"], row["part"]): row for row in sheet(root, "course.csv")}
    assert "sft" not in {method for method, _ in rows}  # nothing of the two is in its log
    rates = [float(rows["skd", part]["acceptance_rate"]) for part in ("begin", "middle", "end")]
    assert rates == [14.0, 122.0, 230.0]  # steps 4…24, 100…144, 220…240
    assert [rows["skd", p]["validation_kl"] for p in ("begin", "middle", "end")] == ["", "", "0.5"]
    assert "validation KL, begin" not in text  # a column that no method fills
    assert "| `skd` | 14.0 | 122.0 | 230.0 | – | 0.500 |" in text
