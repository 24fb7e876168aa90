"""What a flow run shows as artifacts: the stage table, and the report as one Markdown text.

Pure text from files; it knows no Prefect and no DVC.
"""

from __future__ import annotations

import base64
import mimetypes
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

# Bytes. An artifact is one row of the server's database and one answer to the browser.
FIGURE_LIMIT = 200_000
REPORT_LIMIT = 3_000_000

_LINK = re.compile(r"(?P<bang>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)(?:\s+\"[^\"]*\")?\)")


@dataclass(frozen=True)
class Row:
    stage: str
    state: str  # Completed, Cached, Skipped, Failed, …
    seconds: float  # wall time, retries included


def table(rows: Iterable[Row]) -> list[dict[str, str]]:
    return [
        {"stage": row.stage, "state": row.state, "seconds": f"{row.seconds:.1f}"} for row in rows
    ]


def text_table(rows: Iterable[Row]) -> str:
    rows = list(rows)
    width = max((len(row.stage) for row in rows), default=0)
    lines = [f"{row.stage:<{width}}  {row.state:<10} {row.seconds:8.1f} s" for row in rows]
    return "\n".join(lines)


def summary(rows: Iterable[Row]) -> str:
    """One line: how many stages ended in which state."""
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.state] = counts.get(row.state, 0) + 1
    return ", ".join(f"{number} {state.lower()}" for state, number in sorted(counts.items()))


def self_contained(report: Path) -> str:
    """The report with small local figures inlined and other local links turned into text.

    Neither the relative path of a figure nor that of a link means anything in the UI.
    """
    spent = 0

    def replace(match: re.Match[str]) -> str:
        nonlocal spent
        target = match["target"]
        if re.match(r"[a-z]+:|#", target):
            return match[0]
        if not match["bang"]:
            return f"{match['text']}, `{target}`"
        uri = _data_uri(report.parent / target, report.parent, REPORT_LIMIT - spent)
        spent += len(uri)
        return f"![{match['text']}]({uri})" if uri else f"*Figure `{target}`: {match['text']}*"

    return _LINK.sub(replace, report.read_text(encoding="utf-8"))


def _data_uri(figure: Path, folder: Path, room: int) -> str:
    """An empty text for a figure that is missing, too large, no picture or not in the folder."""
    kind = mimetypes.guess_type(figure.name)[0] or ""
    if not figure.is_file() or not kind.startswith("image/"):
        return ""
    if not figure.resolve().is_relative_to(folder.resolve()):
        return ""
    if figure.stat().st_size > FIGURE_LIMIT:
        return ""
    uri = f"data:{kind};base64,{base64.b64encode(figure.read_bytes()).decode('ascii')}"
    return uri if len(uri) <= room else ""
