"""Stage `code`: checks all of params.yaml, and writes down the code that each stage runs.

code/STAGE.txt lists the files that a stage imports with a hash of what each means, and the stage
depends on that one file. So a changed module makes exactly the stages stale that import it, a
changed comment none, and the diff of code/ names what a change reruns. Imports no stage.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pipelines.closure import ROOT, code_lines
from pipelines.schema import load
from pipelines.stages.command import run_command
from skd.files import write_files

CODE = Path("code")
NO_STAGES = ("__init__", "code", "command")  # modules of pipelines/stages that are none


def stages(root: Path = ROOT) -> list[str]:
    """The stages' names: their modules in pipelines/stages."""
    modules = (path.stem for path in (root / "pipelines" / "stages").glob("*.py"))
    return sorted(name for name in modules if name not in NO_STAGES)


def write_code(folder: Path = CODE, root: Path = ROOT) -> None:
    """Fill the folder with STAGE.txt for every stage."""
    lines = {name: code_lines(f"pipelines.stages.{name}", root) for name in stages(root)}
    write_files(folder, {f"{name}.txt": "\n".join(text) + "\n" for name, text in lines.items()})


def main(argv: list[str] | None = None) -> None:
    argparse.ArgumentParser(description=__doc__).parse_args(argv)
    load()
    write_code()


if __name__ == "__main__":
    run_command(main)
