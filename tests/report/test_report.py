"""The report says what the files say: planted wins, ties and losses, and no more."""

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
from skd.report.reading.experiment import ExperimentResults
from skd.report.reading.reader import read_experiment
from skd.report.sections import words
from skd.report.sections.results import COLUMNS
from skd.report.verdicts.compare import families

WIN = {"sft": 50, "on_policy_kd": 55, "skd": 70}
LOSS = {"sft": 50, "on_policy_kd": 75, "skd": 60}
TIE = {"sft": 50, "on_policy_kd": 60, "skd": 60}


def read(root: Path) -> ExperimentResults:
    experiment = load(root / "params.yaml").experiment
    return read_experiment(root, experiment.tasks, experiment.methods, experiment.seeds)


def conclusion(root: Path, reference: str = "skd") -> str:
    run = read(root)
    found = families(run, reference, resamples=500, seed=0)
    bullets = [words.task_words(family) for group in found.values() for family in group]
    return "\n".join([words.headline(run, reference, found), *bullets])


def built(root: Path) -> str:
    main(["--root", str(root)])
    return (root / "reports" / "report.md").read_text(encoding="utf-8")


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


def test_a_planted_tie_is_called_a_tie(make_tree):
    text = conclusion(make_tree(TIE))
    assert "does not win on summarization (tied with `on_policy_kd`)" in text
    assert "best of" not in text


def test_the_higher_of_two_equal_methods_is_not_best(make_tree):
    root = make_tree(WIN)
    for name in ("metrics/evaluate/{}.json", "records/{}/summarization.jsonl"):
        copied = (root / name.format("skd")).read_text().replace('"skd"', '"on_policy_kd"')
        (root / name.format("on_policy_kd")).write_text(copied)
    text = conclusion(root)
    assert "tied with `on_policy_kd`" in text
    assert "none is best" in text


def test_equal_means_have_no_leader(make_tree):
    root = make_tree(WIN)
    for name in ("metrics/evaluate/{}.json", "records/{}/summarization.jsonl"):
        for other in ("on_policy_kd", "sft"):
            copied = (root / name.format("skd")).read_text().replace('"skd"', f'"{other}"')
            (root / name.format(other)).write_text(copied)
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


def test_without_the_reference_method_there_is_no_verdict(make_tree):
    text = built(make_tree({"sft": 50, "on_policy_kd": 60}))
    assert "No verdict" in text
    assert "wins" not in text.split("## Results")[0].split("A method *wins*")[0]


def test_a_reference_without_baselines_has_no_verdict(make_tree):
    assert "No verdict" in built(make_tree({"skd": 50, "skd_mixed_loss": 60}))


def test_a_large_spread_between_seeds_makes_a_tie(make_tree):
    """Three runs at 40, 60 and 80 against three at 50: the test on examples alone would decide."""
    root = make_tree({"on_policy_kd": 50, "skd": 60})
    path = root / "records" / "skd" / "summarization.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row["scores"]["rouge_l"] += 25 * (row["seed"] - 21)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    verdict = families(read(root), "skd", resamples=500, seed=0)["summarization"][0].verdicts[0]
    assert verdict.comparison.p < 0.05 < verdict.holm_p
    assert verdict.word == "tie"


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
    text = built(root)
    for target in re.findall(r"\]\(([^)]+)\)", text):
        assert (root / "reports" / target).exists(), target
    assert str(root) not in text
    tables = re.findall(r"(?:^\|.*\|$\n?)+", text, flags=re.MULTILINE)
    assert len(tables) > 8
    for table in tables:
        widths = {len(line.split("|")) for line in table.strip().splitlines()}
        assert len(widths) == 1, table
    assert text.count("<details>") == text.count("</details>")
    assert "COMET on translation: not scored: no checkpoint is configured" in text
    assert text.index("## Conclusion") < text.index("## Results")
    card = (root / "reports" / "cards" / "translation-skd.md").read_text(encoding="utf-8")
    assert 'folder = "models/students/skd/translation/20"' in card


def test_sample_outputs_are_the_first_rows_for_all_models(make_tree):
    text = built(make_tree(WIN, samples=3))
    part = text.split("## Sample outputs")[1]
    assert re.findall(r"^\| `(test-\d+)` \|", part, flags=re.MULTILINE) == [
        "test-0", "test-1", "test-2",
    ]  # fmt: skip
    for model in ("teacher", "student&#95;init", "sft", "on&#95;policy&#95;kd", "skd"):
        assert part.count(f"| {model} says ") == 3
    assert "&#35;Person1&#35;: costs &#36;5 &#124; &#36;6?<br>" in part


def test_one_seed_has_no_interval_and_still_a_report(make_tree):
    text = built(make_tree(WIN, seeds=(7,)))
    assert "n/a (one seed)" in text
    results = text.split("## Results")[1].split("## Paired")[0]
    assert re.search(r"\d ± ", results) is None


def test_tasks_and_methods_may_have_any_name(make_tree):
    root = make_tree(
        {"plain": 50, "ours": 70},
        {"assamese": "translation", "chat_a": "summarization", "chat_b": "summarization"},
    )
    set_parameter(root, "reference_method: skd", "reference_method: ours")
    text = built(root)
    assert "`ours` wins on every task" in text
    assert (root / "reports" / "figures" / "curves-chat_b.png").exists()
    assert "| `skd` | " in text.split("## Beside the paper")[1]  # ours stands in the paper's row


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
    assert "equal. Every student had 240 steps of 16" in words.budget_words(read(root).tasks[0])
    path = root / "metrics" / "distill" / "sft.json"
    result = json.loads(path.read_text())
    result["tasks"]["summarization"]["21"]["steps"] = 120
    path.write_text(json.dumps(result))
    assert "Ended early: `sft` (seed 21: 120 steps)" in words.budget_words(read(root).tasks[0])
    result["budget"]["prompts"] = 99
    path.write_text(json.dumps(result))
    assert "NOT equal" in words.budget_words(read(root).tasks[0])


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
        "import sys, pipelines.stages.report, skd.report.sections.markdown; "
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
