"""The little Markdown that model cards are written in, as HTML: headings, lists, tables, code and paragraphs.

Nothing else means anything: no HTML, links or pictures. Every character of the text is escaped.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING

from mednovelty.text import printable

if TYPE_CHECKING:
    from markupsafe import Markup

DEEPEST = 6
_HEADING = re.compile(r"(#{1,6}) +(.*)")
_RULE = re.compile(r":?-+:?")
_BARS = re.compile(r"(?<!\\)\|")
"""What parts the cells of a table; a bar after a backslash is a bar."""


def markdown_html(text: str, deeper: int = 0) -> Markup:
    r"""Return Markdown as HTML that can stand in a page.

    Args:
        text: Whoever wrote it.
        deeper: By how many levels its headings lie below those of the page.

    Examples:
        >>> print(markdown_html("# A <card>\n\n* one, `x_1`\n* two\n\nwords\nmore", 1))
        <h2>A &lt;card&gt;</h2>
        <ul>
        <li>one, <code>x_1</code></li>
        <li>two</li>
        </ul>
        <p>words more</p>
    """
    from markupsafe import Markup

    lines = [printable(line.rstrip()) for line in text.splitlines()]
    return Markup("\n".join(_blocks(lines, deeper)))


def _blocks(lines: list[str], deeper: int) -> Iterator[str]:
    for kind, run in groupby(lines, _kind):
        block = list(run)
        if kind == "heading":
            for line in block:
                found = _HEADING.fullmatch(line)
                assert found is not None
                level = min(len(found[1]) + deeper, DEEPEST)
                yield f"<h{level}>{_inline(found[2])}</h{level}>"
        elif kind == "list":
            yield from ("<ul>", *(f"<li>{_inline(line[2:])}</li>" for line in block), "</ul>")
        elif kind == "table":
            yield from _table(block)
        elif kind == "words":
            yield f"<p>{_inline(' '.join(block))}</p>"


def _kind(line: str) -> str:
    if not line.strip():
        return "gap"
    if _HEADING.fullmatch(line):
        return "heading"
    return "list" if line.startswith("* ") else "table" if line.startswith("|") else "words"


def _table(lines: list[str]) -> Iterator[str]:
    """Yield the lines of a table; its first is its head where a line of dashes follows."""
    rows = [_cells(line) for line in lines]
    ruled = len(rows) > 1 and all(_RULE.fullmatch(cell) for cell in rows[1])
    right = [cell.endswith(":") for cell in rows[1]] if ruled else []
    yield '<div class="wide"><table>'
    for number, cells in enumerate(rows):
        if ruled and number == 1:
            continue
        tag = "th" if ruled and number == 0 else "td"
        kinds = [' class="number"' if one else "" for one in right] + [""] * len(cells)
        shown = (f"<{tag}{kind}>{_inline(cell)}</{tag}>" for kind, cell in zip(kinds, cells, strict=False))
        yield f"<tr>{''.join(shown)}</tr>"
    yield "</table></div>"


def _cells(line: str) -> list[str]:
    parts = [cell.strip().replace("\\|", "|") for cell in _BARS.split(line)]
    return parts[1 : -1 if parts[-1] == "" else None]


def _inline(text: str) -> str:
    """Return a text with its code as code; an odd tick is a tick."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        parts[-2:] = ["`".join(parts[-2:])]
    return "".join(
        f"<code>{html.escape(part)}</code>" if number % 2 else html.escape(part)
        for number, part in enumerate(parts)
    )


__all__ = ["markdown_html"]
