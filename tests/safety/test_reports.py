"""What a model writes is data: it steers no Markdown, no page, no artifact and no terminal.

And what an experiment leaves is read as it is or refused by name; no secret gets into a report.
"""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from pipelines.orchestration import artifacts
from pipelines.stages import report
from skd.errors import printable
from skd.report.sections.cells import plain_text, table
from skd.report.sections.page import page
from tests.report.conftest import write_tree
from tests.safety.commands import COUNTED, ends_well, inputs
from tests.safety.junk import damaged, spoilt

HOSTILE = [
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "</td></table><h1>x", "<!--",
    "&lt;b&gt; &amp; &#60;", "| a | b |\n|---|---|", "# title", "---", "- item", "1. item", "> q",
    "```\ncode", "~~~", "    code", "![x](https://example.org/x.png)", "[x](javascript:alert(1))",
    "[x]: https://example.org", "https://example.org/?a=1", "www.example.org", "me@example.org",
    "$$\\frac{1}{0}$$", "\\(x\\)", "\\input{/etc/passwd}", "{{ x }}", "{% raw %}", "@someone #1",
    "**bold** _it_ ~~del~~ `code`", "\x1b[2J\x1b]0;x\x07", "\x00", "\u202etxt.exe", "a\x85b\u2028c",
    "\ud800", "=HYPERLINK(\"x\")", "</details>", "]]>", "<?php", "x" * 100_000, "", " ", "\n\n\n",
]  # fmt: skip
PARTS = st.sampled_from(HOSTILE)
OUTPUTS = st.one_of(PARTS, st.text(), st.lists(PARTS).map("".join))
# The tags of a report without text from outside; `page` makes no others
PLAIN_PAGE = page("# t\n\n" + table(["a"], [["b"]]), {}, {})


class Tags(HTMLParser):
    """Counts the tags of a page and keeps its attributes and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.counted: Counter[str] = Counter()
        self.attributes: set[tuple[str, str | None]] = set()
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counted[tag] += 1
        self.attributes.update(attrs)
        self.text += "\n" * (tag == "br")

    def handle_data(self, data: str) -> None:
        self.text += data


def cells_of(markdown: str) -> list[str]:
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(markdown)
    return [token.content for token in tokens if token.type == "inline"]


@inputs(0.15)
@given(output=OUTPUTS)
def test_any_output_is_one_cell_of_text_and_nothing_else(output: str) -> None:
    COUNTED["shown"] += 1
    shown = plain_text(output)
    assert shown == printable(shown)
    markdown = "# t\n\n" + table(["a", "b"], [[shown, "1"]], text_columns=2)
    assert len(cells_of(markdown)) == 5  # the title, the head's two, and these two
    made, plain = Tags(page(markdown, {}, {})), Tags(PLAIN_PAGE)
    assert made.counted - plain.counted <= Counter(th=1, td=1, br=shown.count("<br>"), em=1)
    assert {value for _, value in made.attributes - plain.attributes} == set()
    assert not re.search(r"://|\bwww\.", shown)
    if "characters more" not in shown and output.strip():
        wanted = "\n".join(printable(line) for line in output.strip().splitlines())
        assert "".join(wanted.split()) in "".join(made.text.split())


@inputs(0.02)
@given(output=OUTPUTS)
def test_a_message_of_any_text_steers_no_terminal(output: str) -> None:
    COUNTED["shown"] += 1
    shown = printable(output)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", shown)
    shown.encode()  # no half of a pair
    assert shown == output or len(shown) >= len(output)


# ------------------------------------------------------------- a whole report of hostile text
SECRETS = {
    "HF_TOKEN": "hf_canaryhuggingface",
    "AWS_SECRET_ACCESS_KEY": "canaryaws",
    "WANDB_API_KEY": "canarywandb",
    "PREFECT_API_KEY": "canaryprefect",
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tree") / "project"
    return write_tree(folder, {"sft": 50, "skd": 70}, seeds=(20, 21), n=8, samples=8)


@pytest.fixture(scope="module")
def hostile(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of an experiment whose data and outputs are hostile, with secrets about."""
    root = tmp_path_factory.mktemp("hostile") / "project"
    shutil.copytree(tree, root)
    texts = [text for text in HOSTILE if text.strip() and "\ud800" not in text]
    for file in [*root.glob("records/*/*.jsonl"), *root.glob("data/*/test.jsonl")]:
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        for number, row in enumerate(rows):
            named = ("output",) if "output" in row else ("source", "target")
            text = "".join(texts[number % 8 :: 8])
            row.update(dict.fromkeys(named, text))
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "figures", lambda *_: {})
        for name, value in SECRETS.items():
            patch.setenv(name, value)
        assert ends_well(report.main, root).status == 0
    return root / "reports"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pictures: they are drawn of what was read, and take seconds."""
    monkeypatch.setattr(report, "figures", lambda *_: {})


def test_a_report_of_hostile_text_has_no_tag_that_a_plain_one_lacks(
    hostile: Path, tree: Path, tmp_path: Path, quick: None
) -> None:
    plain = tmp_path / "project"
    shutil.copytree(tree, plain)
    assert ends_well(report.main, plain).status == 0
    known = Tags((plain / "reports" / "report.html").read_text())
    made = Tags((hostile / "report.html").read_text())
    assert set(made.counted) <= {*known.counted, "br", "em"}
    assert not {tag for tag in made.counted if tag in ("script", "iframe", "object", "base")}
    assert {name for name, _ in made.attributes} == {name for name, _ in known.attributes}
    same = ("h1", "h2", "h3", "table", "details", "img", "a", "pre", "blockquote")
    assert {tag: made.counted[tag] for tag in same} == {tag: known.counted[tag] for tag in same}
    assert "default-src 'none'" in (hostile / "report.html").read_text()


def test_no_file_of_a_hostile_report_holds_what_is_not_to_be_seen(hostile: Path) -> None:
    for file in [*hostile.rglob("*.md"), *hostile.rglob("*.csv"), *hostile.rglob("*.html")]:
        text = file.read_bytes().decode()
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", text), file
        assert len(text) < 2_000_000


def test_no_secret_of_the_environment_is_in_any_file(hostile: Path) -> None:
    for file in hostile.parent.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert not [name for name, value in SECRETS.items() if value.encode() in content], file


def test_the_artifact_of_a_hostile_report_has_its_own_figures_and_no_other_link(
    hostile: Path,
) -> None:
    text = artifacts.self_contained(hostile / "report.md")
    targets = re.findall(r"(?<!\\)\]\(([^)]*)\)", text)
    known = ("#", "https://arxiv.org/", "https://github.com/")
    assert all(target.startswith(known) for target in targets)


def test_an_artifact_takes_no_figure_from_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"png")
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "link.png").symlink_to(tmp_path / "secret.png")
    file = tmp_path / "reports" / "report.md"
    file.write_text(f"![a](../secret.png) ![b]({tmp_path}/secret.png) ![c](link.png)")
    assert "data:" not in artifacts.self_contained(file)


# ------------------------------------------------------------- what an experiment leaves
def left(root: Path) -> list[Path]:
    folders = ("metrics", "records", "logs", "data")
    return sorted(f for name in folders for f in (root / name).rglob("*") if f.is_file())


def check(root: Path, file: Path) -> None:
    ended = ends_well(report.main, root)
    if ended.status:
        assert file.stem in ended.message or "records" in ended.message
        assert "dvc repro" in ended.message
    shutil.rmtree(root.parent)


@inputs(0.1)
@given(data=st.data())
def test_any_bytes_in_any_result(
    data: Any, tree: Path, tmp_path_factory: pytest.TempPathFactory, quick: None
) -> None:
    root = tmp_path_factory.mktemp("results") / "project"
    shutil.copytree(tree, root)
    file = data.draw(st.sampled_from(left(root)))
    file.write_bytes(data.draw(damaged(file.read_bytes())))
    check(root, file)


@inputs(0.06)
@given(data=st.data())
def test_any_values_in_any_result(
    data: Any, tree: Path, tmp_path_factory: pytest.TempPathFactory, quick: None
) -> None:
    root = tmp_path_factory.mktemp("results") / "project"
    shutil.copytree(tree, root)
    file = data.draw(st.sampled_from([f for f in left(root) if f.suffix.startswith(".json")]))
    lines = file.suffix == ".jsonl"
    text = file.read_text()
    document = [json.loads(line) for line in text.splitlines()] if lines else json.loads(text)
    spoiled = data.draw(spoilt(document))
    rows = [json.dumps(row, default=str) for row in spoiled] if lines else [json.dumps(spoiled)]
    file.write_text("\n".join(rows) + "\n", encoding="utf-8", errors="replace")
    check(root, file)
