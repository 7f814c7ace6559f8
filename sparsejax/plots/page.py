"""Reports as one HTML file each: tables, and pictures that lie within the file."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any


def html_page(title: str, body: str) -> str:
    """A whole page.

    Args:
      title: in words.
      body: HTML below the title.

    Example:
      >>> "<h1>a &amp; b</h1>" in html_page("a & b", "")
      True
    """
    return _PAGE.substitute(title=html.escape(title), body=body)


def html_table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table, whose cells are texts or what ``str`` makes of them; they may have several lines.

    Example:
      >>> html_table(["n"], [["<1"]])
      '<table><tr><th>n</th></tr><tr><td>&lt;1</td></tr></table>'
    """
    top = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{_cell(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{body}</table>"


def html_picture(path: Path, title: str, note: str = "") -> str:
    """A PNG file under a heading, carried by the page itself.

    Args:
      path: of the file.
      title: of the heading.
      note: paragraph above the picture.
    """
    data, title = base64.b64encode(path.read_bytes()).decode("ascii"), html.escape(title)
    told = f"<p>{html.escape(note)}</p>" if note else ""
    return f'<h2>{title}</h2>{told}<img alt="{title}" src="data:image/png;base64,{data}">\n'


def _cell(value: Any) -> str:
    return html.escape(str(value)).replace("\n", "<br>")


_PAGE = Template("""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>$title</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 64rem; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0 }
th, td { text-align: right; padding: .2rem .8rem; border-bottom: 1px solid #ddd; vertical-align: top }
th:first-child, td:first-child { text-align: left }
th { border-bottom: 2px solid #888 }
img { max-width: 100%; height: auto }
.words th, .words td { text-align: left; font-size: .85em }
</style>
<h1>$title</h1>
$body
</html>
""")
