"""Keep the report of a long run in git, under reports/NAME beside the default's own.

`dvc repro` writes each profile's report to the same place, so that a study of hours would be gone
with the next `make profile`. The copy has everything that report.md links to, the model cards of
the best students, and the parameters that made it; not the single page report.html, which holds
every figure once more, and on request not the sample outputs, which quote rows of the data. Knows
the names in reports/, and refuses to know what they say.
"""

from __future__ import annotations

import argparse
import re
import shutil
from pathlib import Path

from pipelines.stages.command import run_command
from skd.errors import UserError
from skd.files import read_json, write_folder

REPORTS = Path("reports")
KEPT = ("report.md", "results.csv", "details", "figures", "tables")
CHOICE = Path("models/best/choice.json")
LARGEST = 5_000_000  # bytes: a repository carries it for good
NAME = re.compile("[a-z0-9_-]+")
SAMPLES = "details/samples.md"
SAMPLES_LINE = f"- [Sample outputs]({SAMPLES})\n"
NO_SAMPLES = "- Sample outputs are not kept: they quote rows of the data.\n"
SINGLE_PAGE = " All on one page: [report.html](report.html)."
PARAMETERS = "- [The parameters of this run](params.yaml).\n"


def keep(name: str, root: Path = Path(), samples: bool = True) -> Path:
    """Copy the report of a finished run to reports/NAME; returns that folder.

    samples: with the sample outputs.
    Raises `UserError` if the name is none for a folder or the report's own, if a part of the report
    is missing, or if all of it is more than `LARGEST`.
    """
    reports = root / REPORTS
    if not NAME.fullmatch(name) or name in {*KEPT, "cards"}:
        raise UserError(f"{name!r} is no name for a kept report; take lower-case letters and -")
    best = _best_students(root)
    parts = [reports / part for part in KEPT]
    cards = [reports / "cards" / f"{task}-{method}.md" for task, method in best.items()]
    for path in (*parts, *cards):
        if not path.exists():
            raise UserError(f"{path} is missing; run `dvc repro` to make it")
    target = reports / name

    def fill(folder: Path) -> None:
        for part in parts:
            copy = shutil.copytree if part.is_dir() else shutil.copy
            copy(part, folder / part.name)
        (folder / "cards").mkdir()
        for card in cards:
            shutil.copy(card, folder / "cards")
        text = (folder / "report.md").read_text(encoding="utf-8").replace(SINGLE_PAGE, "")
        if not samples:
            (folder / SAMPLES).unlink()
            text = text.replace(SAMPLES_LINE, NO_SAMPLES)
        (folder / "report.md").write_text(text + PARAMETERS, encoding="utf-8")
        shutil.copy(root / "params.yaml", folder)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        if size > LARGEST:
            raise UserError(
                f"the report takes {size / 1e6:.1f} MB, more than the {LARGEST / 1e6:.0f} MB that "
                "a repository should carry; ask for fewer report.samples_per_task or analyses"
            )

    write_folder(target, fill)
    return target


def _best_students(root: Path) -> dict[str, str]:
    """Task -> the method of its best student, as the stage `export` chose it."""
    path = root / CHOICE
    choice = read_json(path)
    return {task: student["method"] for task, student in choice.items()}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", help="of the folder in reports/, such as `full`")
    parser.add_argument(
        "--without-samples",
        action="store_true",
        help="leave the sample outputs out, where the data's licence or owner allows no copies",
    )
    arguments = parser.parse_args(argv)
    target = keep(arguments.name, samples=not arguments.without_samples)
    print(f"{target}: `git add {target}` keeps it")


if __name__ == "__main__":
    run_command(main)
