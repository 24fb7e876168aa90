"""The whole pipeline in a copy of this repository: from nothing to the report, and what reruns."""

from __future__ import annotations

import csv
import html
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipelines.orchestration.repro import python_first
from pipelines.sandbox import copy_project
from tests.ray_cluster import WORKERS, workers  # noqa: F401 - a fixture

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


# What a method's setting reaches; the runs of an analysis that did not change stay in scratch.
# The stage `code` reads all of params.yaml, to check it.
SKD_STAGES = {"code", "distill@skd", "evaluate", "probe", "report", "export"}
SKD_STAGES |= {"sweep", "fairness", "scaling@narrow"}
RULES = [{"rule": "min_prob", "value": 0.3}, {"rule": "ratio", "value": 0.5}]


def python(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`python -m WORDS` in the project."""
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=root,
        env=python_first(),
        capture_output=True,
        text=True,
        check=False,
    )


def dvc(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return python(root, "dvc", *arguments)


def repro(root: Path, *arguments: str) -> str:
    ended = dvc(root, "repro", *arguments)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def ran(output: str) -> set[str]:
    return {
        line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage '")
    }


def edit(root: Path, change) -> None:
    path = root / "params.yaml"
    params = yaml.safe_load(path.read_text())
    change(params)
    path.write_text(yaml.safe_dump(params, sort_keys=False))


def commit(root: Path) -> None:
    for command in (["add", "--all"], ["commit", "--quiet", "--message", "results"]):
        subprocess.run(
            ["git", "-c", "user.name=t", "-c", "user.email=t@localhost", *command],
            cwd=root,
            check=True,
        )


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("smoke") / "project"
    copy_project(root, "smoke")

    def shrink(params) -> None:  # seconds, not minutes: this tests the plumbing
        params["data"]["summarization"] |= {
            "train_size": 300,
            "validation_size": 20,
            "test_size": 30,
        }
        for model in ("teacher", "student"):
            params["models"][model]["steps"] = 10
        params["sft"]["teacher"] |= {"steps": 20, "validate_every": 10, "validation_examples": 10}
        params["sft"]["student"] |= {"steps": 4, "validation_examples": 10}
        params["distill"]["optimisation"] |= {
            "steps": 8,
            "validate_every": 4,
            "validation_examples": 10,
            "checkpoint_every": 4,
        }
        params["budget"]["summarization"]["student_examples"] = 40
        params["experiment"]["sweeps"].append("rules")
        whole = {"setting": "acceptance", "values": RULES}
        params["sweeps"]["rules"] = params["sweeps"]["threshold"] | whole
        params["experiment"]["test_sets"] = ["other"]
        params["data"]["other"] = {
            "task": "summarization",
            "tests": "summarization",
            "source": {
                "kind": "files",
                "test": "input/data/other.jsonl",
                "columns": {"source": "q", "target": "a"},
            },
        }

    rows = [{"q": f"#Person1#: Is it {n}?", "a": f"They ask about {n}."} for n in range(4)]
    (root / "input/data/other.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    edit(root, shrink)
    repro(root)
    return root


def test_the_report_and_its_numbers_are_there(project) -> None:
    text = (project / "reports/report.md").read_text()
    for name in ("`skd`", "`on_policy_kd`", "*teacher*", "*untrained student, SFT start*"):
        assert f"{name}** |" in text or f"{name} |" in text
    with (project / "reports/results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["method"] for row in rows} == {
        "teacher", "student_init", "student_init_instruct", "sft", "on_policy_kd", "skd",
    }  # fmt: skip
    assert list((project / "reports/figures").glob("*.png"))
    for path in (project / "reports/cards").iterdir():
        assert "summarization" in path.read_text()


def test_another_set_is_tested_and_trains_nothing(project) -> None:
    text = (project / "reports/details/test-sets.md").read_text()
    assert "4 rows for the models of summarization" in text
    with (project / "reports/tables/test_sets.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["model"] for row in rows} >= {"teacher", "student_init", "skd"}
    before = (project / "params.yaml").read_text()
    edit(project, lambda p: p["experiment"].update(test_sets=[]))
    stale = set(json.loads(dvc(project, "status", "--json").stdout))
    (project / "params.yaml").write_text(before)
    assert stale == {"code", "prepare_tests", "evaluate", "report", "export"}


def test_metrics_and_plots_are_declared(project) -> None:
    shown = dvc(project, "metrics", "show", "--json")
    assert shown.returncode == 0, shown.stderr
    files = {path for rev in json.loads(shown.stdout).values() for path in rev["data"]}
    assert {"metrics/evaluate/skd.json", "metrics/base.json"} <= {Path(f).as_posix() for f in files}
    assert "validation_metric" in dvc(project, "plots", "show", "--json").stdout


def test_a_published_student_loads_with_transformers_alone(project) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = project / "models/students/skd/summarization/20"
    model = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True)
    assert (
        len(AutoTokenizer.from_pretrained(folder)) <= model.get_output_embeddings().weight.shape[0]
    )
    assert not [p for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pkl")]


def test_the_code_on_a_card_makes_the_output_that_was_scored(project) -> None:
    card = (project / "reports/cards/summarization-skd.md").read_text(encoding="utf-8")
    code = re.search("```python\n(.*?)```", card, re.DOTALL)
    assert code is not None
    rows = (project / "data/summarization/test.jsonl").read_text(encoding="utf-8")
    first = json.loads(rows.partition("\n")[0])
    cut = "max_new_tokens=48"  # budget.summarization
    text = code[1].replace('"…"', repr(first["source"])).replace("max_new_tokens=256", cut)
    ran = subprocess.run(
        [sys.executable, "-c", text], cwd=project, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    records = (project / "records/skd/summarization.jsonl").read_text(encoding="utf-8")
    scored = [
        record["output"]
        for line in records.splitlines()
        if (record := json.loads(line))["id"] == first["id"] and record["seed"] == 20
    ]
    assert [ran.stdout.strip()] == [output.strip() for output in scored]


def test_the_best_student_is_exported_and_loads(project) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = project / "models/best/summarization"
    choice = json.loads((folder.parent / "choice.json").read_text())["summarization"]
    scores = [
        json.loads(path.read_text())["tasks"]["summarization"]["20"]["validation"]
        for path in (project / "metrics/distill").iterdir()
    ]
    assert choice["score"] == max(score["metric"] for score in scores)
    assert AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True).num_parameters() > 0
    assert len(AutoTokenizer.from_pretrained(folder)) > 0
    assert choice["method"] in (folder / "README.md").read_text()


def test_the_analyses_hold_what_their_runs_say(project) -> None:
    sweeps = json.loads((project / "metrics/sweep.json").read_text())["sweeps"]
    rates = [
        sweeps["threshold"]["runs"]["summarization"][value]["20"]["acceptance_rate"]
        for value in ("1", "25")
    ]
    assert rates[0] < rates[1]  # a larger K accepts more
    assert set(sweeps["rules"]["runs"]["summarization"]) == {"min_prob 0.3", "ratio 0.5"}
    analyses = html.unescape((project / "reports/details/analyses.md").read_text())
    assert "| min_prob 0.3 |" in analyses
    probe = json.loads((project / "metrics/probe.json").read_text())
    assert set(probe["tasks"]["summarization"]) == {"student_init", "skd"}
    for model in probe["tasks"]["summarization"].values():
        assert model["draft"]["ways"]["greedy"]["acceptance_length"] >= 1.0
        assert model["draft"]["ways"]["assisted"]["equal"] == model["draft"]["prompts"]
        assert sum(model["proposals"]["ranks"].values()) == pytest.approx(100.0)
        assert model["agreement"]["student"]["kl"] > 0.0


def test_equal_budgets_are_in_the_files(project) -> None:
    budgets = []
    for path in (project / "metrics/distill").iterdir():
        result = json.loads(path.read_text())
        run = result["tasks"]["summarization"]["20"]
        budgets.append((result["budget"]["steps"], run["prompts"]))
    assert len(budgets) == 3
    assert len(set(budgets)) == 1


def test_a_second_run_has_nothing_to_do(project) -> None:
    assert ran(repro(project)) == set()
    assert "up to date" in dvc(project, "status").stdout


def test_what_is_made_again_from_nothing_has_the_same_hash(project) -> None:
    """So that nothing after it runs again: times stand in metrics, not in outputs."""

    def outputs() -> dict[str, str]:
        stages = yaml.safe_load((project / "dvc.lock").read_text())["stages"]
        made = [*stages["distill@skd"]["outs"], *stages["sft"]["outs"]]
        return {out["path"]: out["md5"] for out in made if out["path"].startswith("models/")}

    before = outputs()
    scratch, kept = project / ".scratch", project / ".kept"
    scratch.rename(kept)
    repro(project, "--force", "--single-item", "sft")
    repro(project, "--force", "--single-item", "distill@skd")
    shutil.rmtree(scratch)
    kept.rename(scratch)
    assert outputs() == before
    assert len(before) == 2


def test_a_value_of_one_method_reruns_that_method_alone_and_comes_back_from_the_cache(project):
    commit(project)
    edit(project, lambda p: p["methods"]["skd"]["acceptance"].update(value=7))
    assert ran(repro(project)) == SKD_STAGES
    commit(project)
    edit(project, lambda p: p["methods"]["skd"]["acceptance"].update(value=1))
    assert ran(repro(project)) <= {"code", "report", "export"}  # a report's files belong to git


def test_two_revisions_are_compared_with_tests(project) -> None:
    made = python(project, "pipelines.compare", "HEAD~1", "HEAD")
    assert made.returncode == 0, made.stderr
    assert "| `methods.skd.acceptance.value` | `1.0` | `7.0` |" in made.stdout
    rows = [line for line in made.stdout.splitlines() if line.startswith(("| `sft`", "| `skd`"))]
    assert len(rows) == 2
    assert rows[0].endswith("| – | – | – | same |")  # it was not touched
    wrong = python(project, "pipelines.compare", "HEAD", "nowhere")
    assert wrong.returncode == 2
    assert "no revision nowhere" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_settings_of_this_machine_rerun_nothing(project) -> None:
    edit(project, lambda p: p["runtime"].update(workers=1, progress=False))
    assert ran(repro(project)) == {"code"}  # which checks the parameters


def test_two_workers_of_a_cluster_give_the_same_results_to_the_last_digit(
    project,
    workers,  # noqa: F811
) -> None:
    """Neither side's scratch knows a run. The workers have folders of their own."""
    before = (project / "reports/results.csv").read_bytes()
    there = {"engine": "ray", "scratch": ".elsewhere", "progress": False}
    edit(project, lambda p: p["runtime"].update(there))
    again = ["sft", "distill@on_policy_kd", "distill@skd", "evaluate", "report"]
    assert ran(repro(project, "--force", "--single-item", *again)) == set(again)
    assert (project / "reports/results.csv").read_bytes() == before
    for name in WORKERS:
        assert list((workers / name).rglob(".elsewhere/*/finished.json"))
    edit(project, lambda p: p["runtime"].update(engine="local", scratch=".scratch"))
    repro(project)


def test_a_deleted_checkpoint_comes_back_without_training(project) -> None:
    folder = project / "models/students/skd/summarization/20"
    before = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").unlink()
    assert ran(repro(project)) == set()
    assert (folder / "model.safetensors").read_bytes() == before


def test_another_seed_trains_only_that_seed(project) -> None:
    finished = {p: p.stat().st_mtime_ns for p in (project / ".scratch").glob("*/finished.json")}
    edit(project, lambda p: p["experiment"].update(seeds=[20, 21]))
    repro(project, "distill")
    after = {p: p.stat().st_mtime_ns for p in (project / ".scratch").glob("*/finished.json")}
    assert finished.items() <= after.items()
    new = sorted(path.parent.name.rsplit("-", 1)[0] for path in after.keys() - finished.keys())
    methods = ("on_policy_kd", "sft", "sft", "skd")  # the student is fine-tuned before it all
    assert new == [f"summarization-{method}-21" for method in methods]


def dying(folder: Path) -> dict[str, str]:
    """An environment whose `python` kills DVC and all beside it when a run's state is kept."""
    code = (
        "import os, runpy, signal, sys\n"
        "from skd.training import loop\n"
        "keep = loop.save_state\n"
        "def die(*state):\n"
        "    keep(*state)\n"
        "    os.killpg(0, signal.SIGKILL)\n"
        "loop.save_state = die\n"
        "sys.argv = sys.argv[2:]\n"
        "runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)\n"
    )
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{code}" "$@"\n')
    python.chmod(0o755)
    own = python_first()
    return own | {"PATH": f"{folder}{os.pathsep}{own['PATH']}"}


def test_a_killed_run_goes_on_where_it_was(project, tmp_path) -> None:
    edit(
        project,
        lambda p: p["distill"]["optimisation"].update(
            steps=24, validate_every=8, checkpoint_every=4
        ),
    )
    killed = subprocess.run(
        [sys.executable, "-m", "dvc", "repro", "--single-item", "distill@skd"],
        cwd=project,
        env=dying(tmp_path),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    (state, *_) = (project / ".scratch").glob("*skd-2*/state")
    reached = json.loads((state / "counts.json").read_text())["step"]
    assert 0 < reached < 24
    repro(project, "--single-item", "distill@skd")
    with (project / "logs/distill/skd/summarization.csv").open() as file:
        rows = list(csv.DictReader(file))
    for seed in {row["seed"] for row in rows}:
        steps = [int(row["step"]) for row in rows if row["seed"] == seed]
        assert steps == list(range(1, 25))


@pytest.mark.parametrize(
    ("change", "words", "message"),
    [
        (
            lambda p: p["distill"].update(blocksize=4),
            ["dvc", "repro", "-f", "--single-item", "code"],
            "unknown parameter 'distill.blocksize'",
        ),
        (
            lambda p: p["budget"]["summarization"].update(max_prompt_tokens=10),
            ["pipelines.stages.sft"],
            "over max_prompt_tokens=10",
        ),
        (
            lambda p: p["models"].update(
                teacher={"kind": "folder", "path": "nowhere"},
                student={"kind": "layers", "keep": [0]},
            ),
            ["pipelines.stages.base"],
            "models.teacher.path: nowhere is no model folder",
        ),
    ],
)
def test_a_mistake_ends_a_stage_with_one_message_and_nothing_half_written(
    project, change, words, message
) -> None:
    """DVC hands the message on; the other stages are run as it runs them, without it."""
    original = (project / "params.yaml").read_text()
    try:
        edit(project, change)
        ended = python(project, *words)
    finally:
        (project / "params.yaml").write_text(original)
    assert ended.returncode != 0
    assert message in ended.stderr + ended.stdout
    assert "Traceback" not in ended.stderr + ended.stdout
    assert not list(project.glob("**/.*.partial"))
