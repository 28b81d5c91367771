"""Pages that need nothing else: one file, no address outside it, light and dark, on a phone and in print.

What somebody else wrote, names and texts of sidecars, is escaped by jinja2 and made printable on its way into
any page. A Content-Security-Policy in each page has the browser refuse whatever would leave it.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from mednovelty.errors import OutputError
from mednovelty.io.atomic import write_text_atomic
from mednovelty.text import printable

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

MARK = "mednovelty report"
"""Stands in the head of every page: what bears it may be written over."""
MISSING = "n/a"


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture in a page.

    Attributes:
        png: Its bytes.
        alt: What it shows, with numbers, for those who do not see it.
        caption: Below it.
        crisp: Whether its pixels are voxels, whose edges stay sharp when it is enlarged.
    """

    png: bytes
    alt: str
    caption: str = ""
    crisp: bool = False

    @property
    def width(self) -> int:
        """Its pixels in a row, as the PNG's head tells; 0 where it is none."""
        head = self.png[:24]
        return int.from_bytes(head[16:20]) if len(head) == 24 and head[12:16] == b"IHDR" else 0

    @property
    def src(self) -> str:
        """The picture as an address that leads nowhere else."""
        return data_uri(self.png)


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: What it shows.
        key: What the table is sorted by; None: the text.
        href: A relative address, already quoted; empty: no link.
    """

    text: str
    key: float | None = None
    href: str = ""

    @property
    def sort(self) -> str:
        """The key as an attribute: NaN sorts last, wherever the others go."""
        return "" if self.key is None or math.isnan(self.key) else repr(float(self.key))


@dataclass(frozen=True, slots=True)
class Table:
    """A table whose columns can be sorted by a click.

    Attributes:
        columns: Names, with what they mean, which shows when pointed at; empty: nothing.
        rows: Of as many cells as there are columns.
        caption: Above it.
    """

    columns: Sequence[tuple[str, str]]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    marks: Sequence[str] = field(default=())
    """Of each row, what a script finds in ``data-mark``."""
    hint: str = ""
    """Behind the caption, of what only a screen can do; not printed."""
    on_screen: Sequence[int] = ()
    """Columns that are not printed, for the width of the paper."""


def number(value: Any, digits: int = 4, unit: str = "") -> Cell:
    """Return a number as a cell; what is none, as ``n/a`` in a table, is shown as such and sorted last.

    Examples:
        >>> number("0.25"), number("n/a").text
        (Cell(text='0.25', key=0.25, href=''), 'n/a')
    """
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = math.nan
    if math.isnan(found):
        return Cell(MISSING, math.nan)
    return Cell(f"{found:.{digits}g}{unit}", found)


def link(path: Path, folder: Path) -> str:
    """Return the way from a page's folder to a file, as an address: names may hold what addresses may not."""
    import os

    return quote(Path(os.path.relpath(path, folder)).as_posix())


def data_uri(content: bytes, kind: str = "image/png") -> str:
    """Return bytes as an address that holds them."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def script_json(value: Any) -> Markup:
    """Return a value as JSON that can stand in a script or an attribute: nothing in it ends either."""
    from markupsafe import Markup

    text = json.dumps(value, allow_nan=False)
    for character in "<>&'":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def render(template: str, **context: Any) -> str:
    """Return a page.

    Args:
        template: In ``report/templates``; it extends ``base.html`` and fills its block ``main``.
        context: ``title`` at least; every text is escaped.
    """
    from importlib.metadata import version

    known = {"mark": MARK, "version": version("mednovelty")}
    return _environment().get_template(template).render(**known, **context)


def write_page(path: Path, text: str) -> Path:
    """Write a page, whole or not at all; one that somebody else has put there is left alone.

    Raises:
        OutputError: It cannot be written, or what stands there is no page of ours.
    """
    if path.exists() and not is_ours(path):
        raise OutputError(f"{path}: was not written by mednovelty; move it away and run mednovelty report")
    write_text_atomic(path, text)
    return path


def is_ours(path: Path) -> bool:
    """Whether a file is a page that was written here."""
    try:
        with path.open("rb") as file:
            return f'content="{MARK}"'.encode() in file.read(2048)
    except OSError:
        return False


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("mednovelty.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["script_json"] = script_json
    return environment


def _shown(value: Any) -> Any:
    """Return what stands in a page for a value: no control character, and what is escaped stays as it is."""
    if isinstance(value, str) and not hasattr(value, "__html__"):
        return printable(value, keep="\n")
    return value


__all__ = ["MARK", "Cell", "Picture", "Table", "data_uri", "is_ours", "link", "number", "render",
           "script_json", "write_page"]  # fmt: skip
