"""Stage `report`: turns the files of a finished run into reports/. Reads and writes files only."""

from __future__ import annotations

import argparse
import hashlib
import subprocess
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from pipelines.schema import Params, load
from pipelines.settings.experiment import Experiment
from skd.files import write_files, write_text
from skd.report.figures.draw import figures, files
from skd.report.reading.analyses import read_analyses
from skd.report.reading.parts import read_parts
from skd.report.reading.reader import read_experiment
from skd.report.sections.cards import cards
from skd.report.sections.details import pages
from skd.report.sections.main import FOLDER, report
from skd.report.sections.page import page
from skd.report.sections.provenance import Provenance
from skd.report.sections.results import results_csv
from skd.report.sections.sheets import sheets
from skd.report.verdicts.evidence import weigh
from skd.settings import canonical, plain

DESCRIPTION = """\
Write the report of the run that params.yaml describes.

reads   metrics/, records/, logs/, data/<task>/<split>.jsonl and test_sets/<name>/test.jsonl of
        the tasks, sets, methods and seeds in the section `experiment`; nothing else, no model
writes  reports/report.md        one page: what to use, who wins, scores, cost, how to reproduce
        reports/details/*.md     comparisons, curves, analyses, samples and the rest
        reports/report.html      all of it as one file, figures inside
        reports/results.csv      one row per number of the test split
        reports/tables/*.csv     the tables with plain numbers; all pairs compared
        reports/figures/*.png    comparison, cost, training curves; *.csv: what they show
        reports/cards/*.md       a model card per task and method

The section `report` of params.yaml sets the method that is compared with the others, the points
within which methods count as equal, the resamples of the intervals over tasks, and the number of
sample outputs.
"""
COMMAND = "dvc repro report"
SOURCES = ("skd", "pipelines", "dvc.yaml")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.stages.report",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--root", type=Path, default=Path(), help="folder of params.yaml (default: here)"
    )
    root = parser.parse_args(argv).root
    params = load(root / "params.yaml")
    build(params, root, provenance(params, root))
    print(f"report: {root / 'reports' / 'report.md'}")


def build(params: Params, root: Path, source: Provenance) -> None:
    """Read the experiment under `root` and write its `reports/`."""
    experiment, settings = params.experiment, params.report
    tested = {name: str(params.data[name].tests) for name in experiment.test_sets}
    results = read_experiment(root, experiment.tasks, experiment.methods, experiment.seeds, tested)
    analyses = read_analyses(root, experiment.sweeps, experiment.students)
    evidence = weigh(
        results,
        analyses,
        settings.reference_method,
        settings.margin,
        resamples=settings.resamples,
        seed=settings.seed,
    )
    drawn = figures(results, evidence)
    parts = read_parts(root, _items(experiment))
    details = pages(results, analyses, evidence, parts, list(drawn), settings.samples_per_task)
    text = report(results, evidence, parts, source, list(drawn), details)
    out = root / "reports"
    write_files(out / "figures", files(drawn))
    write_files(out / "cards", cards(results, source))
    write_text(out / "results.csv", results_csv(results))
    write_files(out / "tables", sheets(results, analyses, evidence))
    write_files(out / FOLDER, {f"{name}.md": each for name, each in details.items()})
    write_text(out / "report.md", text)
    pictures = {name: figure.png for name, figure in drawn.items()}
    write_text(out / "report.html", page(text, details, pictures))


def _items(experiment: Experiment) -> set[str]:
    """What a stage of several parts names them after."""
    named = (experiment.tasks, experiment.methods, experiment.students)
    return {"starts", *chain.from_iterable(named)}


def provenance(params: Params, root: Path) -> Provenance:
    """Revision and parameters. Outside git the report says so; it is no error."""
    settings = {key: value for key, value in plain(params).items() if key != "runtime"}
    revision = _git(root, "rev-parse", "HEAD")
    changes = _git(root, "status", "--porcelain", "--", *SOURCES)
    return Provenance(
        revision=revision or "not under git",
        dirty=bool(changes),
        parameters_hash=hashlib.sha256(canonical(settings).encode()).hexdigest()[:16],
        command=COMMAND,
    )


def _git(root: Path, *arguments: str) -> str | None:
    """Output of a git command; None where git or the repository is absent."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=root, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


if __name__ == "__main__":
    from pipelines.stages.command import run_command

    run_command(main)
