"""The ``view`` command: a page in the browser, served to this machine alone."""

from __future__ import annotations

import logging
import threading
import webbrowser
from dataclasses import dataclass
from pathlib import Path

from mednovelty import console
from mednovelty.errors import ScanError, SettingsError, StoppedError
from mednovelty.page_server import Pages, PageServer

log = logging.getLogger("mednovelty")

PAGE = "index.html"
RUN = "run.json"
DETECTOR = "detector.json"
MARKS = {RUN: ("Command", "DetectorSha256", "Scans"), DETECTOR: ("schema_version", "recipe", "method")}
"""One of these lies in each folder that ``score`` or ``fit`` has written, and tells these things. Others call
files so too: what some other tool has left in somebody's home must not have all of that served."""
LEVELS = 3
"""So far above a scan's page is the folder of its cohort at most: ``OUT/sub-01/ses-1/dwi``."""


@dataclass(frozen=True)
class ViewRequest:
    """What ``view`` was asked for."""

    path: Path
    browser: bool = True
    port: int = 0
    as_json: bool = False


def view(request: ViewRequest) -> int:
    """Serve a page until a signal ends it.

    Raises:
        ScanError: There is no such page.
        SettingsError: It is of several, or in no folder of ours.
        OutputError: The port cannot be had.
        StoppedError: Ctrl-C or SIGTERM: this is how it ends.
    """
    pages = pages_at(request.path)
    with PageServer(pages, request.port) as server:
        if request.as_json:
            console.print_json({"url": server.url, "page": str(pages.page), "folder": str(pages.root)})
        else:
            log.warning("%s", server.url)
            log.info("whoever has this address can see %s on this machine; Ctrl-C ends it", pages.root)
        if request.browser:
            _open(server.url)
        try:
            server.serve_forever()
        except KeyboardInterrupt as error:
            raise StoppedError("no longer served") from error
        except StoppedError as error:
            raise type(error)("no longer served") from error
    return 0


def pages_at(path: Path) -> Pages:
    """Return the page that a path stands for, and the folder of ours that it is in.

    Args:
        path: A folder of maps, or a detector: its ``index.html``; a folder in one of those, such as
            ``OUT/sub-01``: the one page of a scan in it; or a page itself.

    Raises:
        ScanError: There is no such file, or no page.
        SettingsError: It is in no folder of ours, or there are several pages.
    """
    if not path.exists():
        raise ScanError(f"{path}: is not there; name a folder that score or fit has written",
                        code="view.absent")  # fmt: skip
    root = _root_of(path)
    if path.is_file():
        if path.suffix.lower() != ".html":
            raise ScanError(f"{path}: is no page; name a folder, or a page (*.html)", code="view.no_page")
        return _served(root, path)
    if path.resolve() == root.resolve():
        return _served(root, _existing(root / PAGE))
    found = sorted(page for page in path.rglob("*.html") if _is_of_a_scan(page))
    if len(found) > 1:
        names = ", ".join(str(page) for page in found[:4]) + (", ..." if len(found) > 4 else "")
        raise SettingsError(f"{path}: holds the pages of {len(found)} scans; name one of {names}")
    if not found:
        raise ScanError(f"{path}: no page of a scan is here; make it with: mednovelty report {root}",
                        code="view.no_page")  # fmt: skip
    return _served(root, found[0])


def _served(root: Path, page: Path) -> Pages:
    """Return a page of a folder.

    Raises:
        ScanError: It is kept elsewhere, as where git-annex has made a link of it: it would not be found.
    """
    pages = Pages.of(root, page)
    elsewhere = pages.leads_to()
    if elsewhere is not None:
        raise ScanError(
            f"{page}: is kept at {elsewhere}, and nothing hidden nor outside of {root} is served; where "
            f"DataLad or git-annex keeps the folder, unlock its pages first: datalad unlock {page}",
            code="view.elsewhere",
        )
    return pages


def _root_of(path: Path) -> Path:
    """Return the nearest folder, the path's own or one above, that one of our commands has written.

    Raises:
        SettingsError: There is none: nothing else is served.
    """
    from mednovelty.output_folder import DESCRIPTION, described_by_us

    start = path if path.is_dir() else path.parent
    # A ".." is followed as the system does, for its parents by name are not the folders above.
    whole = start.resolve() if ".." in start.parts else start.absolute()
    for folder in (start, *list(whole.parents)[:LEVELS]):
        if described_by_us(folder / DESCRIPTION) or any(_tells(folder / mark, MARKS[mark]) for mark in MARKS):
            return folder
    raise SettingsError(
        f"{path}: is in no folder that score or fit has written ({' or '.join(MARKS)} of mednovelty, there "
        f"or at most {LEVELS} folders above); nothing else is served"
    )


def _tells(file: Path, keys: tuple[str, ...]) -> bool:
    """Return whether a file is there, and holds an object of JSON with these keys."""
    from mednovelty.outputs import told

    facts = told(file) if file.is_file() else None
    return facts is not None and all(key in facts for key in keys)


def _existing(page: Path) -> Path:
    if not page.is_file():
        raise ScanError(f"{page}: is not there; make it with: mednovelty report {page.parent}",
                        code="view.no_page")  # fmt: skip
    return page


def _is_of_a_scan(page: Path) -> bool:
    """Return whether a page is a scan's own, not one of its explanations: it is called as its maps are."""
    stem = page.name.removesuffix(".html")
    return next(page.parent.glob(f"{_literal(stem)}_desc-*"), None) is not None


def _literal(text: str) -> str:
    """Return a pattern that only matches the text."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in text)


def _open(url: str) -> None:
    """Open the browser beside the server: some only return when they are closed."""

    def run() -> None:
        try:
            opened = webbrowser.open(url)
        except (webbrowser.Error, OSError):
            opened = False
        if not opened:
            log.warning("no browser could be opened; open the address above in one")

    threading.Thread(target=run, daemon=True).start()


__all__ = ["ViewRequest", "pages_at", "view"]
