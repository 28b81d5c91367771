"""Serves one folder of pages to this machine alone, for as long as somebody looks.

Whoever else is on the machine, or any web page open in the same browser, can reach a port on 127.0.0.1. So
every address begins with a token that only the printed address holds; the ``Host`` that a request names must
be this server (a stranger's domain that is made to point to 127.0.0.1 is not); and what is answered is a
regular file inside the folder, links followed, or nothing. No listing, nothing hidden, nothing written.
"""

from __future__ import annotations

import os
import secrets
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote, unquote, urlsplit

from mednovelty.errors import OutputError, SettingsError, StoppedError

ADDRESS = "127.0.0.1"
NAMES = (ADDRESS, "localhost")
TOKEN_BYTES = 16
IDLE_S = 30.0
"""A connection on which nothing comes for so long is closed."""
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".csv": "text/csv; charset=utf-8",
    ".tsv": "text/tab-separated-values; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
    ".log": "text/plain; charset=utf-8",
    ".md": "text/plain; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".gz": "application/gzip",
}
OTHER_KIND = "application/octet-stream"
POLICY = (
    "default-src 'none'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; font-src data:; "
    "script-src 'self' 'unsafe-inline'; frame-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
"""Pages carry their scripts and pictures within; nothing they hold may ask for anything elsewhere."""
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(frozen=True, slots=True)
class Pages:
    """What is served.

    Attributes:
        root: The folder.
        page: The file in it that is opened first.
        token: The first part of every address.
    """

    root: Path
    page: Path
    token: str

    @classmethod
    def of(cls, root: Path, page: Path) -> Pages:
        """Return pages under a new token."""
        return cls(Path(os.path.realpath(root)), Path(os.path.relpath(page, root)),
                   secrets.token_urlsafe(TOKEN_BYTES))  # fmt: skip

    def found(self, path: str) -> Path | None:
        """Return the file that the path of a request, its token taken off, stands for; None where none may.

        Args:
            path: Quoted, as in an address.
        """
        names = [unquote(name, errors="surrogateescape") for name in path.split("/")]
        if any(bad_name(name) for name in names):
            return None
        real = Path(os.path.realpath(self.root.joinpath(*names)))
        return real if self._may_be_seen(real) else None

    def leads_to(self) -> Path | None:
        """Return where the page leads that is not served for it: outside, or to what is hidden; else None."""
        real = Path(os.path.realpath(self.root / self.page))
        return None if self._may_be_seen(real) else real

    def _may_be_seen(self, real: Path) -> bool:
        """Return whether a file, links followed, is inside, and nothing on the way to it is hidden."""
        return real.is_relative_to(self.root) and not any(
            name.startswith(".") for name in real.relative_to(self.root).parts
        )


def bad_name(name: str) -> bool:
    r"""Return whether a part of a path could lead elsewhere, or to what is hidden.

    Examples:
        >>> [bad_name(name) for name in ("sub-01.html", "..", ".git", "", "a\\b", "a/b", "C:x")]
        [False, True, True, True, True, True, True]
    """
    return not name or name.startswith(".") or any(c in name for c in "/\\:\0")


class PageServer(ThreadingHTTPServer):
    """Answers on 127.0.0.1 until it is shut down.

    Args:
        pages: What is served.
        port: Where; 0: any that is free.

    Raises:
        OutputError: The port cannot be had.
    """

    daemon_threads = True
    # Somebody else on the port must be told of, not shared with.
    allow_reuse_address = os.name == "posix"

    def __init__(self, pages: Pages, port: int = 0) -> None:
        if not 0 <= port < 1 << 16:
            raise SettingsError(f"--port {port}: give one from 1 to 65535, or 0 for any that is free")
        self.pages = pages
        try:
            super().__init__((ADDRESS, port), _Handler)
        except OSError as error:
            raise OutputError(
                f"port {port} of {ADDRESS} cannot be had ({error.strerror}); choose another --port, or "
                "leave it out"
            ) from error

    @property
    def port(self) -> int:
        """Where it answers."""
        return int(self.server_address[1])

    @property
    def url(self) -> str:
        """The address to open first; who has it can see the folder."""
        way = "/".join(quote(os.fsencode(part), safe="") for part in self.pages.page.parts)
        return f"http://{ADDRESS}:{self.port}/{self.pages.token}/{way}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of browsers that close a connection in the middle; a signal then still ends all.

        Raises:
            StoppedError: It came while a connection was taken.
        """
        error = sys.exc_info()[1]
        if isinstance(error, StoppedError):
            raise error


class _Handler(BaseHTTPRequestHandler):
    """One request."""

    server: PageServer
    server_version, sys_version = "mednovelty", ""
    protocol_version = "HTTP/1.1"
    timeout: ClassVar[float] = IDLE_S

    def do_GET(self) -> None:
        """Send a file."""
        self._answer(body=True)

    def do_HEAD(self) -> None:
        """Send what would be said of it."""
        self._answer(body=False)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: addresses hold the token."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what http.server itself refuses as shortly as all else."""
        self._refuse(HTTPStatus(code), message or HTTPStatus(code).phrase)

    def _answer(self, body: bool) -> None:
        if self._strange_host():
            self._refuse(HTTPStatus.FORBIDDEN, "not a name of this server")
            return
        path = self._path()
        if path is None:
            self._refuse(HTTPStatus.FORBIDDEN, "open the address that mednovelty view has printed")
            return
        file = self.server.pages.found(path)
        opened = None if file is None else _opened(file)
        if file is None or opened is None:
            self._refuse(HTTPStatus.NOT_FOUND, "no such file")
            return
        descriptor, size = opened
        with os.fdopen(descriptor, "rb") as content:
            self._begin(HTTPStatus.OK, KINDS.get(file.suffix.lower(), OTHER_KIND), size)
            if body:
                self._copy(content.read, size)

    def _strange_host(self) -> bool:
        """Return whether the request names another server than this, as of a domain that was turned round."""
        hosts = self.headers.get_all("Host") or []
        own = {f"{name}:{self.server.port}" for name in NAMES}
        return len(hosts) != 1 or hosts[0].strip().lower() not in own

    def _path(self) -> str | None:
        """Return what follows the token; None where the token is not the right one."""
        try:
            parts = urlsplit(self.path)
        except ValueError:
            return None
        token, _, path = parts.path.lstrip("/").partition("/")
        # Compared in a time that does not tell how much of a guess was right.
        right = secrets.compare_digest(token.encode("utf-8", "replace"), self.server.pages.token.encode())
        return path if right and not parts.netloc else None

    def _copy(self, read: Callable[[int], bytes], size: int) -> None:
        """Send as many bytes as were announced: a file that is cut meanwhile closes the connection."""
        while size > 0:
            block = read(min(size, 1 << 20))
            if not block:
                self.close_connection = True
                return
            self.wfile.write(block)
            size -= len(block)

    def _refuse(self, status: HTTPStatus, words: str) -> None:
        content = (words + "\n").encode("ascii", "replace")
        # What a refused request still carries is not read as the next one.
        self.close_connection = True
        self._begin(status, KINDS[".txt"], len(content))
        if self.command != "HEAD":
            self.wfile.write(content)

    def _begin(self, status: HTTPStatus, kind: str, size: int) -> None:
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(size))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()


def _opened(file: Path) -> tuple[int, int] | None:
    """Return descriptor and size of a regular file; None where it is none, or has just become a link."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        descriptor = os.open(file, flags | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError):
        return None
    told = os.fstat(descriptor)
    if not stat.S_ISREG(told.st_mode):
        os.close(descriptor)
        return None
    return descriptor, told.st_size


__all__ = ["ADDRESS", "PageServer", "Pages", "bad_name"]
