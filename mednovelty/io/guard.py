"""Opening files that somebody else wrote: regular files only, named in every message, watched while read."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from mednovelty.errors import ScanError
from mednovelty.text import printable

_BLOCK_BYTES = 1 << 20


def shown(path: str | os.PathLike[str]) -> str:
    r"""Return a file's name as messages show it: one line, control characters and stray bytes as ``\xNN``.

    Examples:
        >>> shown("cohort/sub-01_dwi.nii.gz")
        'sub-01_dwi.nii.gz'
        >>> print(shown("sub-01\nok_dwi.nii.gz"))
        sub-01\x0aok_dwi.nii.gz
    """
    name = Path(path).name or str(path)
    return printable(name)


@dataclass(frozen=True, slots=True)
class Identity:
    """What changes when a file is replaced or written to."""

    device: int
    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Identity:
        """Return the identity in what ``os.stat`` says."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


class GuardedFile:
    """A regular file, open for reading from its beginning, hashed on the way.

    Args:
        path: The file; links are followed.
        hashed: Whether the bytes read go into ``sha256``.

    Raises:
        ScanError: It is absent, unreadable, a folder, a pipe, a device or empty.
    """

    def __init__(self, path: Path, *, hashed: bool = False) -> None:
        self.path = path
        self.name = shown(path)
        self._hash = hashlib.sha256() if hashed else None
        try:
            # Asked before it is opened: opening a device can already do something.
            _check_regular(os.stat(path), self.name)
            # A pipe that takes the file's place after that must not block.
            flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
            self._descriptor = os.open(path, flags)
        except OSError as error:
            raise unreadable(path, error) from error
        try:
            status = os.fstat(self._descriptor)
            _check_regular(status, self.name)
        except BaseException:
            os.close(self._descriptor)
            raise
        self.identity = Identity.of(status)

    @property
    def size(self) -> int:
        """Bytes."""
        return self.identity.size

    @property
    def sha256(self) -> str:
        """Of the bytes read so far."""
        if self._hash is None:
            raise ValueError(f"{self.name} was opened without hashing")
        return self._hash.hexdigest()

    def read(self, n: int) -> bytes:
        """Return up to n bytes; none at the end of the file."""
        try:
            block = os.read(self._descriptor, n)
        except OSError as error:
            raise unreadable(self.path, error) from error
        if self._hash is not None:
            self._hash.update(block)
        return block

    def first(self, n: int) -> bytes:
        """Return the file's first n bytes, without counting them as read; only before ``read``."""
        try:
            block = os.read(self._descriptor, n)
            os.lseek(self._descriptor, 0, os.SEEK_SET)
        except OSError as error:
            raise unreadable(self.path, error) from error
        return block

    def check_unchanged(self, since: Identity | None = None) -> None:
        """Raise ``ScanError`` when the file is not what it was when it was opened, or at ``since``."""
        try:
            now = Identity.of(os.stat(self.path))
        except OSError as error:
            raise unreadable(self.path, error) from error
        if not (since or self.identity) == Identity.of(os.fstat(self._descriptor)) == now:
            raise ScanError(
                f"{self.name}: changed while it was read ({self.size} bytes then, {now.size} now); "
                "run again when nothing writes to it",
                code="file.changed",
            )

    def close(self) -> None:
        """Close it."""
        os.close(self._descriptor)

    def __enter__(self) -> GuardedFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_text(path: Path, limit_bytes: int = 1 << 20) -> str:
    """Return the text of a small file, without its byte-order mark.

    Raises:
        ScanError: Not a regular file, too long for what it should be, or not text.
    """
    with GuardedFile(path) as file:
        if file.size > limit_bytes:
            what = f"{file.size} bytes, more than the {limit_bytes} such a file can need"
            raise ScanError(f"{file.name}: {what}", code="file.too_big")
        blocks = []
        while block := file.read(limit_bytes):
            blocks.append(block)
    raw = b"".join(blocks)
    if b"\0" in raw:
        raise ScanError(f"{shown(path)}: holds NUL bytes, so it is not text", code="file.not_text")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ScanError(f"{shown(path)}: byte {error.start} is not UTF-8, so it is not text",
                        code="file.not_text") from error  # fmt: skip


def unreadable(path: Path, error: OSError) -> ScanError:
    """Return what to raise when the system refuses a file."""
    name = shown(path)
    if error.errno == errno.ELOOP:
        return ScanError(f"{name}: a link that leads back to itself", code="file.link")
    if isinstance(error, FileNotFoundError) and path.is_symlink():
        return ScanError(f"{name}: a link whose target is absent; fetch its content (datalad get) or mend it",
                         code="file.link")  # fmt: skip
    if isinstance(error, FileNotFoundError):
        return ScanError(f"{name}: no such file in {path.parent}", code="file.absent")
    if isinstance(error, PermissionError):
        return ScanError(f"{name}: permission denied", code="file.permission")
    return ScanError(f"{name}: cannot be read: {error.strerror or error}", code="file.unreadable")


def _check_regular(status: os.stat_result, name: str) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise ScanError(f"{name}: is a folder, not a file", code="file.folder")
    if not stat.S_ISREG(status.st_mode):
        raise ScanError(f"{name}: not a regular file but a pipe, socket or device", code="file.special")
    if status.st_size == 0:
        raise ScanError(f"{name}: the file is empty (0 bytes)", code="file.empty")


def sha256_of_file(path: Path) -> str:
    """Return the sha256 of a regular file's bytes, 64 hexadecimal digits.

    Raises:
        ScanError: The file is absent, unreadable, or a pipe or device, which might never end.
    """
    with GuardedFile(path, hashed=True) as file:
        while file.read(_BLOCK_BYTES):
            pass
        return file.sha256
