"""Switch `params.yaml` to a profile, or list the profiles.

A profile is the embedded default with whole top-level sections replaced by its own. The
result is checked before anything is written; what was in params.yaml is kept beside it.
Switching back is served from DVC's run cache: what the former profile left of tasks that the
new one lacks is removed from `data`, because stages depend on it as a whole.
"""

from __future__ import annotations

import argparse
import io
import shutil
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipelines.schema import parse
from pipelines.stages.command import run_command
from skd.errors import UserError
from skd.files import write_text

PROFILES = Path("profiles")
DEFAULT = "embedded"
DATA = Path("data")  # an output of `prepare` per task; DVC has it in its cache


def compose(name: str, folder: Path = PROFILES) -> str:
    """The text of params.yaml under this profile. Raises `UserError` if it is not valid."""
    path = folder / f"{name}.yaml"
    if not path.exists():
        raise UserError(f"no profile {name!r}; there are: {', '.join(names(folder))}")
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 120
    if name == DEFAULT:
        text = path.read_text(encoding="utf-8")
    else:
        merged: Any = yaml.load((folder / f"{DEFAULT}.yaml").read_text(encoding="utf-8"))
        for section, value in yaml.load(path.read_text(encoding="utf-8")).items():
            merged[section] = value
        merged.yaml_set_start_comment(
            f"The profile {name!r}: profiles/{name}.yaml over the default."
        )
        out = io.StringIO()
        yaml.dump(merged, out)
        text = out.getvalue()
    parse(YAML(typ="safe").load(text), str(path))
    return text


def names(folder: Path = PROFILES) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.yaml"))


def use(name: str, root: Path = Path()) -> None:
    """Write params.yaml; the former one becomes params.yaml.previous."""
    text = compose(name, root / PROFILES)
    target = root / "params.yaml"
    if target.exists():
        write_text(target.with_name("params.yaml.previous"), target.read_text(encoding="utf-8"))
    write_text(target, text)
    tasks = YAML(typ="safe").load(text)["experiment"]["tasks"]
    for folder in sorted((root / DATA).glob("*/")):
        if folder.name not in tasks:
            shutil.rmtree(folder)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", nargs="?", help="the profile to use; none: list them")
    arguments = parser.parse_args(argv)
    if arguments.name is None:
        print("\n".join(names()))
        return
    use(arguments.name)
    print(f"params.yaml is now the profile {arguments.name!r}; run `dvc repro`")
    print("what it was before: params.yaml.previous")


if __name__ == "__main__":
    run_command(main)
