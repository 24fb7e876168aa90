"""A kept report: whole, with the cards of the best, small enough for git, never half-written."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines import keep as module
from pipelines.keep import keep
from skd.errors import UserError
from skd.files import write_json, write_text

FILES = ("results.csv", "details/scores.md", "figures/cost.png", "tables/scores.csv")


@pytest.fixture
def run_folder(tmp_path) -> Path:
    """What a finished run of two methods leaves of its report."""
    for name in FILES:
        write_text(tmp_path / "reports" / name, f"{name} as it was")
    text = "# Report\n\n- [Model cards](cards). All on one page: [report.html](report.html).\n"
    write_text(tmp_path / "reports/report.md", text)
    write_text(tmp_path / "reports/report.html", "<p>all of it</p>")
    for method in ("sft", "skd"):
        write_text(tmp_path / f"reports/cards/translation-{method}.md", method)
    write_json(tmp_path / "models/best/choice.json", {"translation": {"method": "skd"}})
    write_text(tmp_path / "params.yaml", "seeds: [1]\n")
    return tmp_path


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_copy_has_the_report_its_parameters_and_the_best_students_cards(run_folder) -> None:
    kept = contents(keep("full", run_folder))
    assert kept == {
        **{name: f"{name} as it was" for name in FILES},
        "report.md": "# Report\n\n- [Model cards](cards).\n"
        "- [The parameters of this run](params.yaml).\n",
        "cards/translation-skd.md": "skd",
        "params.yaml": "seeds: [1]\n",
    }


def test_samples_that_quote_the_data_stay_here_and_the_report_says_so(run_folder) -> None:
    reports = run_folder / "reports"
    write_text(reports / "details/samples.md", "a stranger's words")
    text = (reports / "report.md").read_text()
    write_text(reports / "report.md", f"{text}- [Sample outputs](details/samples.md)\n")
    kept = contents(keep("full", run_folder, samples=False))
    assert "details/samples.md" not in kept
    assert "samples.md" not in kept["report.md"]
    assert "- Sample outputs are not kept: they quote rows of the data.\n" in kept["report.md"]


def test_the_line_about_samples_is_the_one_that_reports_have() -> None:
    report = Path(__file__).parents[2] / "reports/report.md"
    assert module.SAMPLES_LINE in report.read_text(encoding="utf-8")


def test_keeping_again_leaves_nothing_of_the_former_copy(run_folder) -> None:
    keep("full", run_folder)
    (run_folder / "reports/tables/scores.csv").rename(run_folder / "reports/tables/other.csv")
    kept = contents(keep("full", run_folder))
    assert "tables/other.csv" in kept
    assert "tables/scores.csv" not in kept


@pytest.mark.parametrize("name", ["../elsewhere", "a/b", "", "Full", "details", "cards"])
def test_a_name_that_would_land_elsewhere_is_refused(run_folder, name) -> None:
    before = contents(run_folder)
    with pytest.raises(UserError, match="no name for a kept report"):
        keep(name, run_folder)
    assert contents(run_folder) == before


@pytest.mark.parametrize(
    "missing", ["models/best/choice.json", "reports/report.md", "reports/cards/translation-skd.md"]
)
def test_what_is_missing_is_named_with_its_remedy(run_folder, missing) -> None:
    (run_folder / missing).unlink()
    with pytest.raises(UserError, match=rf"{Path(missing).name} is missing; run `dvc repro`"):
        keep("full", run_folder)
    assert not (run_folder / "reports/full").exists()


def test_a_report_too_large_for_git_is_refused_and_nothing_is_left(run_folder, monkeypatch) -> None:
    monkeypatch.setattr(module, "LARGEST", 10)
    with pytest.raises(UserError, match="more than"):
        keep("full", run_folder)
    left = {path.name for path in (run_folder / "reports").iterdir()}
    assert not {"full", ".full.partial"} & left
