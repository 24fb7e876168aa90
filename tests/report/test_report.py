"""The report says what the files say: planted wins, losses and nulls, and no more."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.schema import load
from pipelines.stages.report import build, main, provenance
from skd.errors import UserError
from skd.report.sections import costs, words
from skd.report.sections.results import COLUMNS
from tests.report.conftest import built, read, texts, weighed

WIN = {"sft": 50, "on_policy_kd": 55, "skd": 70}
LOSS = {"sft": 50, "on_policy_kd": 75, "skd": 60}
NULL = {"sft": 50, "on_policy_kd": 60, "skd": 60}


def conclusion(root: Path, reference: str = "skd") -> str:
    run, evidence = read(root), weighed(root, reference)
    tables = [evidence.of(task.name) for task in run.tasks]
    bullets = [words.task_words(table, against) for table in tables for against in table.planned]
    return "\n".join([words.headline(run, evidence), *bullets])


def copy_scores(root: Path, method: str, other: str) -> None:
    """Let the other method have this one's scores."""
    for name in ("metrics/evaluate/{}.json", "records/{}/summarization.jsonl"):
        copied = (root / name.format(method)).read_text().replace(f'"{method}"', f'"{other}"')
        (root / name.format(other)).write_text(copied)


def set_parameter(root: Path, old: str, new: str) -> None:
    path = root / "params.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


# ------------------------------------------------------------------ conclusions
def test_a_planted_win_is_called_a_win_and_best(make_tree):
    text = conclusion(make_tree(WIN))
    assert "`skd` wins on summarization" in text
    assert "better than `sft` and `on_policy_kd`" in text
    assert "It is the best of the 3 methods" in text


def test_a_planted_loss_is_said_plainly(make_tree):
    text = conclusion(make_tree(LOSS))
    assert "`skd` does not win on summarization (worse than `on_policy_kd`)" in text
    assert "Highest mean from this start: `on_policy_kd`" in text
    assert " wins" not in text
    assert "best of" not in text


def test_what_is_not_decided_is_called_undecided_and_nothing_else(make_tree):
    text = conclusion(make_tree(NULL))
    assert "does not win on summarization (undecided against `on_policy_kd`)" in text
    assert re.search(r"undecided against `on_policy_kd` \(a lead of \d+\.\d points is", text)
    for word in ("best of", "equal", "tie", "tied"):
        assert word not in text


def test_equal_is_what_surely_lies_within_the_margin(make_tree):
    root = make_tree(WIN)
    copy_scores(root, "skd", "on_policy_kd")
    text = conclusion(root)
    assert "equal to `on_policy_kd`" in text
    assert "undecided" not in text
    assert "is not better than all" in text


def test_equal_means_have_no_leader(make_tree):
    root = make_tree(WIN)
    for other in ("on_policy_kd", "sft"):
        copy_scores(root, "skd", other)
    assert "All methods from this start have the same mean." in conclusion(root)


def test_wins_and_losses_are_kept_apart_by_task(make_tree):
    tasks = {"translation": "translation", "arithmetic": "arithmetic"}
    rival = {"translation": 50, "arithmetic": 75}
    text = conclusion(make_tree({"sft": 45, "on_policy_kd": rival, "skd": 62}, tasks))
    assert (
        "`skd` wins on translation. It does not win on arithmetic (worse than `on_policy_kd`)."
        in text
    )


def test_interleaved_variants_are_not_baselines_but_keep_skd_from_being_best(make_tree):
    text = conclusion(make_tree(WIN | {"skd_mixed_loss": 80}))
    assert "`skd` wins" in text
    assert "worse than `skd_mixed_loss`" in text
    assert "best of" not in text


def test_the_instruct_start_is_judged_on_its_own(make_tree):
    methods = LOSS | {"on_policy_kd_instruct": 40, "skd_instruct": 65}
    text = conclusion(make_tree(methods))
    assert "does not win" in text
    assert "instruct start (ROUGE-L): `skd_instruct`" in text
    assert "better than `on_policy_kd_instruct`" in text


def test_without_the_reference_method_it_is_still_said_what_to_use(make_tree):
    pages = texts(make_tree({"sft": 50, "on_policy_kd": 60}))
    assert "**No verdict: `skd`" in pages["report"]
    assert "**Use `on_policy_kd` on summarization.**" in pages["report"]
    assert "wins" not in pages["report"].split("## Results")[0]
    assert "| ▲ |" in pages["comparisons"]


def test_a_reference_without_baselines_has_no_verdict(make_tree):
    assert "No verdict" in texts(make_tree({"skd": 50, "skd_mixed_loss": 60}))["report"]


def test_a_large_spread_between_seeds_is_undecided(make_tree):
    """Three runs at 40, 60 and 80 against three at 50: the examples alone would decide."""
    root = make_tree({"on_policy_kd": 50, "skd": 60})
    path = root / "records" / "skd" / "summarization.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row["scores"]["rouge_l"] += 25 * (row["seed"] - 21)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    verdict = weighed(root).of("summarization").against_reference["on_policy_kd"]
    assert verdict.word == "undecided"
    assert verdict.comparison.p > 0.05


# ------------------------------------------------------------------ whole reports
def test_results_csv_holds_every_number_once_and_can_be_recomputed(make_tree):
    root = make_tree(WIN)
    built(root)
    with (root / "reports" / "results.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    keys = [(row["method"], row["seed"], row["metric"]) for row in rows]
    assert len(set(keys)) == len(keys)
    expected = 0
    for path in (root / "metrics" / "evaluate").rglob("*.json"):
        for model in json.loads(path.read_text())["tasks"]["summarization"]["models"].values():
            expected += sum(len(scores) for scores in model.values())
    assert len(rows) == expected
    assert {"teacher", "student_init", "student_init_instruct"} <= {row["method"] for row in rows}
    records = [
        json.loads(line)
        for line in (root / "records" / "skd" / "summarization.jsonl").read_text().splitlines()
    ]
    for row in rows:
        if row["method"] == "skd" and row["metric"] == "rouge_l":
            scores = [r["scores"]["rouge_l"] for r in records if str(r["seed"]) == row["seed"]]
            assert float(row["value"]) == pytest.approx(sum(scores) / len(scores), abs=1e-5)
            assert (row["n"], row["split"], row["task"]) == (
                str(len(scores)), "test", "summarization",
            )  # fmt: skip


def test_links_lead_somewhere_and_tables_keep_their_columns(make_tree):
    root = make_tree(WIN, {"translation": "translation"})
    pages = built(root)
    for name, text in pages.items():
        folder = root / "reports" / ("" if name == "report" else "details")
        for target in re.findall(r"\]\(([^)]+)\)", text):
            assert (folder / target).exists(), target
        assert str(root) not in text
        for table in re.findall(r"(?:^\|.*\|$\n?)+", text, flags=re.MULTILINE):
            widths = {len(line.split("|")) for line in table.strip().splitlines()}
            assert len(widths) == 1, table
        assert text.count("<details>") == text.count("</details>")
        assert name == "report" or f"](details/{name}.md)" in pages["report"]
    text = pages["report"]
    assert "COMET on translation: not scored: no checkpoint is configured" in text
    assert text.index("## What to use") < text.index("## Does `skd` win?") < text.index("## Res")
    card = (root / "reports" / "cards" / "translation-skd.md").read_text(encoding="utf-8")
    assert 'folder = "models/students/skd/translation/20"' in card


def test_sample_outputs_are_the_first_rows_for_all_models(make_tree):
    part = texts(make_tree(WIN, samples=3))["samples"]
    assert re.findall(r"^\| `(test-\d+)` \|", part, flags=re.MULTILINE) == [
        "test-0", "test-1", "test-2",
    ]  # fmt: skip
    for model in ("teacher", "student&#95;init", "sft", "on&#95;policy&#95;kd", "skd"):
        assert part.count(f"| {model} says ") == 3
    assert "&#35;Person1&#35;: costs &#36;5 &#124; &#36;6?<br>" in part


@pytest.mark.parametrize("seeds", [(7,), (7, 8)])
def test_fewer_than_three_runs_have_no_interval_and_no_verdict(make_tree, seeds):
    pages = texts(make_tree(WIN, seeds=seeds, test_sets={"else": "summarization"}))
    for text in pages.values():
        assert not re.search(r"\d ± |\d \(\d+\.?\d* to |\d … [+-]", text)
        assert not re.search(r" [▲=▼?] \|", text)
    assert "Nothing is recommended." in pages["report"]
    assert "**No verdict. " in pages["report"]
    assert "a verdict takes 3 seeds" in pages["report"]


def test_shares_stay_within_0_and_100(make_tree):
    """Even of three runs that lie far apart, at the upper end."""
    root = make_tree(WIN | {"imit_kd": 96}, n=12)
    path = root / "metrics" / "evaluate" / "imit_kd.json"
    result = json.loads(path.read_text())
    for number, scores in enumerate(result["tasks"]["summarization"]["models"]["imit_kd"].values()):
        scores["valid"] = 100.0 - 30 * number
    path.write_text(json.dumps(result))
    pages = texts(root)
    assert "| 70.0 (0.0 to 100.0)" in pages["report"]
    for text in pages.values():
        for mean, width in re.findall(r"(\d+\.\d) ± (\d+\.\d)", text):
            assert float(mean) - float(width) >= 0
            assert float(mean) + float(width) <= 100


def test_the_main_page_is_short_for_many_methods_and_tasks(make_tree):
    kinds = ("sft", "supervised_kd", "seq_kd", "on_policy_kd", "on_policy_hard", "imit_kd",
             "mixed_skd", "two_stage_kd", "skd", "skd_mixed_loss")  # fmt: skip
    means = {kind: 40 + 2 * place for place, kind in enumerate(kinds)}
    methods = {f"{kind}{end}": mean for kind, mean in means.items() for end in ("", "_instruct")}
    tasks = {task: task for task in ("translation", "summarization", "arithmetic")}
    root = make_tree(methods, tasks, n=12, acceptance=10.0)
    text = texts(root)["report"]
    assert len(text.splitlines()) <= 250
    assert text.count("| teacher overrides almost everything |") == 1


def test_training_that_still_gains_is_warned_of(make_tree):
    root = make_tree(WIN, n=12)
    assert "Still learning" not in texts(root)["report"]
    path = root / "logs" / "distill" / "skd" / "summarization.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        if row["validation_metric"]:
            row["validation_metric"] = str(0.1 * int(row["step"]))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    text = texts(root)["report"]
    assert "**Still learning on summarization**" in text
    assert "`skd` by 4.8 points" in text  # a fifth of 240 steps


def test_students_far_from_the_teacher_are_warned_of(make_tree):
    assert "Far from the teacher" not in texts(make_tree({"sft": 50, "skd": 80}, n=12))["report"]


def test_students_that_close_little_of_the_lead_are_far(make_tree):
    text = texts(make_tree({"sft": 46, "skd": 55}, n=12))["report"]
    assert "**Far from the teacher on summarization**: the highest mean (`skd`" in text


def test_tasks_and_methods_may_have_any_name(make_tree):
    root = make_tree(
        {"plain": 50, "ours": 70},
        {"assamese": "translation", "chat_a": "summarization", "chat_b": "summarization"},
    )
    set_parameter(root, "reference_method: skd", "reference_method: ours")
    pages = built(root)
    assert "`ours` wins on every task" in pages["report"]
    assert (root / "reports" / "figures" / "curves-chat_b.png").exists()
    assert "| `skd` | " in pages["scores"].split("## Beside the paper")[1]  # ours, in its row


def test_equal_files_give_an_equal_report(make_tree):
    root = make_tree(WIN, samples=1, n=20)
    folder = root / "reports"

    def contents() -> dict[str, bytes]:
        return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}

    built(root)
    first = contents()
    built(root)
    assert contents() == first
    assert not [name for name in first if "partial" in name]


def test_files_of_an_earlier_report_do_not_stay(make_tree):
    root = make_tree(WIN, n=20)
    stale = root / "reports" / "cards" / "old.md"
    stale.parent.mkdir(parents=True)
    stale.write_text("old")
    built(root)
    assert not stale.exists()


# ------------------------------------------------------------------ notes
def test_unequal_budgets_are_named(make_tree):
    root = make_tree(WIN)
    assert "equal. Every student had 240 steps of 16" in costs.budget_words(read(root).tasks[0])
    path = root / "metrics" / "distill" / "sft.json"
    result = json.loads(path.read_text())
    result["tasks"]["summarization"]["21"]["steps"] = 120
    path.write_text(json.dumps(result))
    assert "Ended early: `sft` (seed 21: 120 steps)" in costs.budget_words(read(root).tasks[0])
    result["budget"]["prompts"] = 99
    path.write_text(json.dumps(result))
    assert "NOT equal" in costs.budget_words(read(root).tasks[0])


# ------------------------------------------------------------------ errors
@pytest.mark.parametrize(
    ("file", "stage"),
    [
        ("metrics/base.json", "base"),
        ("metrics/prepare/summarization.json", "prepare@summarization"),
        ("data/summarization/test.jsonl", "prepare@summarization"),
        ("metrics/evaluate/starts.json", "evaluate"),
        ("records/starts/summarization.jsonl", "evaluate"),
        ("metrics/evaluate/skd.json", "evaluate"),
        ("records/skd/summarization.jsonl", "evaluate"),
        ("metrics/distill/skd.json", "distill@skd"),
        ("logs/distill/skd/summarization.csv", "distill@skd"),
    ],
)
def test_a_missing_file_is_named_with_its_stage_and_nothing_is_written(make_tree, file, stage):
    root = make_tree(WIN, n=5)
    (root / file).unlink()
    with pytest.raises(UserError, match=rf"{re.escape(file)}.*dvc repro {re.escape(stage)}`"):
        main(["--root", str(root)])
    assert not (root / "reports").exists()


def test_a_seed_that_was_never_run_is_named(make_tree):
    root = make_tree(WIN, seeds=(20, 21), n=5)
    set_parameter(root, "- 21", "- 99")
    with pytest.raises(UserError, match=r"seed 99.*dvc repro"):
        read(root)


def test_a_lost_example_is_an_error_since_pairs_need_both_sides(make_tree):
    root = make_tree(WIN, n=5)
    path = root / "records" / "sft" / "summarization.jsonl"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]))
    with pytest.raises(UserError, match="dvc repro evaluate"):
        read(root)


def test_broken_json_is_named_with_its_line(make_tree):
    root = make_tree(WIN, n=5)
    path = root / "records" / "sft" / "summarization.jsonl"
    path.write_text(path.read_text() + "{")
    with pytest.raises(UserError, match="line 16"):
        read(root)


# ------------------------------------------------------------------ command
def test_the_command_ends_with_status_2_and_one_line(make_tree):
    root = make_tree(WIN, n=5)
    (root / "metrics" / "base.json").unlink()
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.stages.report", "--root", str(root)],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "base.json" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_report_needs_no_torch(make_tree):
    code = (
        "import sys, pipelines.stages.report, skd.report.sections.main; "
        "sys.exit(bool({'torch', 'transformers', 'pandas'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_provenance_outside_git_is_no_error_and_the_hash_ignores_the_runtime(make_tree):
    root = make_tree(WIN, n=5)
    params = load(root / "params.yaml")
    found = provenance(params, root)
    set_parameter(root, "progress: true", "progress: false")
    same = provenance(load(root / "params.yaml"), root)
    set_parameter(root, "max_prompt_tokens: 160", "max_prompt_tokens: 161")
    other = provenance(load(root / "params.yaml"), root)
    assert found.parameters_hash == same.parameters_hash != other.parameters_hash
    build(params, root, found)
    assert found.parameters_hash in (root / "reports" / "report.md").read_text(encoding="utf-8")


def test_a_method_with_two_responses_a_prompt_says_so_where_it_is_recommended(make_tree):
    pages = built(make_tree({"sft": 50, "skd": 60, "student_and_teacher": 80}))
    opening = pages["report"].partition("## Does")[0]
    assert "`student_and_teacher` trains on two responses for every prompt." in opening
    assert "`student_and_teacher`: two responses for every prompt" in pages["curves-and-cost"]
    assert "two responses" not in "".join(built(make_tree(WIN)).values())


def test_every_method_is_explained_with_its_source_and_its_settings(make_tree):
    pages = built(make_tree({"sft": 50, "skd_mixed_loss": 60, "skd": 70}))
    rows = [line for line in pages["methods"].splitlines() if line.startswith("| `")]
    assert rows[0] == (
        "| `sft` | supervised fine-tuning on the ground truth | compared in SKD's paper | "
        "baseline | SFT start | – | – |"
    )
    assert "| ours | interleaved |" in rows[1]
    assert "arXiv 2410.11325, compared in SKD's paper" in rows[2]
    assert rows[2].endswith("| forward_kl | top_k 25, sample |")
    assert "(details/methods.md)" in pages["report"].partition("## What to use")[0]
