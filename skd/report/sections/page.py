"""`reports/report.html`: the report and its details as one file, figures inside.

Fetches nothing."""

from __future__ import annotations

import base64
from collections.abc import Mapping

from markdown_it import MarkdownIt

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; margin: 1rem 0; }
table { font-size: .9rem; }
th, td { border: 1px solid #ccc; padding: .25rem .45rem; }
td[style$="right"] { white-space: nowrap; }  /* numbers */
th { background: #f3f3f3; }
img { max-width: 100%; }
code { background: #f3f3f3; padding: 0 .2rem; }
details { margin: .5rem 0; }
summary { cursor: pointer; font-weight: 600; }
blockquote { border-left: 4px solid #c90; margin-left: 0; padding-left: 1rem; }
"""


# The page has its figures inside: a browser is to run and fetch nothing, whatever the text says
_ALLOWED = (
    '<meta http-equiv="Content-Security-Policy" '
    "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n"
)


def page(markdown: str, pages: Mapping[str, str], figures: Mapping[str, bytes]) -> str:
    """The main page, then each page of the details behind its title.

    The Markdown may hold HTML of its own (<details>); text from data and models is already
    written as entities there.

    Args:
        pages: Markdown by the name that links call `details/<name>.md`.
        figures: PNG bytes by the names that the Markdown shows as `figures/<name>.png`.
    """
    body = _html(markdown) + "".join(_folded(name, text) for name, text in pages.items())
    for name, content in figures.items():
        inline = f"data:image/png;base64,{base64.b64encode(content).decode()}"
        body = body.replace(f'src="figures/{name}.png"', f'src="{inline}"')
    for name in pages:
        body = body.replace(f'href="details/{name}.md"', f'href="#{name}"')
    title = markdown.splitlines()[0].lstrip("# ")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"{_ALLOWED}<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    )


def _folded(name: str, markdown: str) -> str:
    """A link to what is inside opens it."""
    title, _, rest = markdown.partition("\n")
    inside = _html(rest).replace('="../', '="')  # what the page links lies beside report.html
    return (
        f"<details>\n<summary>{title.lstrip('# ')}</summary>\n"
        f'<div id="{name}">\n{inside}</div>\n</details>\n'
    )


def _html(markdown: str) -> str:
    rendered: str = MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown)
    return rendered
