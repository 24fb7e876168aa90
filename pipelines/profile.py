"""Switch `params.yaml` to a profile, or list the profiles.

A profile is the embedded default with whole top-level sections replaced by its own. The
result is checked before anything is written; what was in params.yaml is kept beside it.
Switching back is served from DVC's run cache: what the former profile left of rows that the new one
lacks is taken away.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipelines.orchestration.leftovers import tidy
from pipelines.schema import parse
from pipelines.stages.command import run_command
from pipelines.yaml_text import parse_yaml, read_text, read_yaml
from skd.errors import UserError
from skd.files import write_text

PROFILES = Path("profiles")
DEFAULT = "embedded"


def compose(name: str, folder: Path = PROFILES) -> str:
    """The text of params.yaml under this profile. Raises `UserError` if it is not valid."""
    if name not in names(folder):
        raise UserError(f"no profile {name!r}; there are: {', '.join(names(folder))}")
    path = folder / f"{name}.yaml"
    text = path.read_text(encoding="utf-8") if name == DEFAULT else _merged(path, name)
    parse(parse_yaml(text, str(path)), str(path))
    return text


def _merged(path: Path, name: str) -> str:
    """The default's text with the profile's sections in place; comments stay."""
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 120
    if not isinstance(read_yaml(path), dict):  # what YAML must not hold is refused here
        raise UserError(f"{path}: sections of params.yaml are expected")
    try:
        merged: Any = yaml.load(read_text(path.with_name(f"{DEFAULT}.yaml")))
        merged.update(yaml.load(read_text(path)))
    except YAMLError as error:  # YAML 1.2, which DVC reads, and 1.1 differ
        raise UserError(f"{path}: not valid YAML: {error}") from None
    merged.yaml_set_start_comment(f"The profile {name!r}: profiles/{name}.yaml over the default.")
    out = io.StringIO()
    yaml.dump(merged, out)
    return out.getvalue()


def names(folder: Path = PROFILES) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.yaml"))


def use(name: str, root: Path = Path()) -> None:
    """Write params.yaml; the former one becomes params.yaml.previous."""
    text = compose(name, root / PROFILES)
    target = root / "params.yaml"
    if target.exists():
        write_text(target.with_name("params.yaml.previous"), target.read_text(encoding="utf-8"))
    write_text(target, text)
    tidy(root)


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
