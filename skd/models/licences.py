"""What licence a model says it has, in the YAML block that opens its README.

Knows folders and the Hub's cache; judges nothing. A README without a licence is no error.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

README = "README.md"


def of_folder(folder: Path) -> str | None:
    try:
        return stated((folder / README).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None


def of_hub(name: str, revision: str) -> str | None:
    """From the snapshot's README, which is fetched where the cache lacks it and the Hub answers."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return of_folder(Path(hf_hub_download(name, README, revision=revision)).parent)
    except (OSError, ValueError, HfHubHTTPError):  # no README, no access or no network
        return None


def stated(readme: str) -> str | None:
    """`license`, or `license_name` where that is `other`; several as one text."""
    fields = front_matter(readme)
    licence = fields.get("license")
    if licence == "other":
        licence = fields.get("license_name") or licence
    if isinstance(licence, list):
        licence = ", ".join(name for name in licence if isinstance(name, str))
    return licence if isinstance(licence, str) and licence else None


def front_matter(text: str) -> dict[str, Any]:
    """The YAML block between `---` lines at the start; empty where there is none to be read."""
    lines = text.lstrip("\ufeff").splitlines()
    if not lines or lines[0].rstrip() != "---":
        return {}
    ends = [number for number, line in enumerate(lines) if number and line.rstrip() == "---"]
    try:
        # The base loader makes texts of all scalars: none of them can be malformed
        fields = yaml.load("\n".join(lines[1 : ends[0]]), yaml.BaseLoader) if ends else None  # noqa: S506
    except (yaml.YAMLError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}
