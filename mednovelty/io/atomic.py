"""Writing files so that a name holds either the whole new content or what it held before.

A temporary file in the same folder, fsync, a look at what was written, ``os.replace``, fsync of the
folder. A process killed at any moment leaves at most a file that begins with ``.writing-``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path

from mednovelty.errors import OutputError
from mednovelty.io.guard import shown

TEMPORARY_PREFIX = ".writing-"


def write_bytes_atomic(
    path: str | Path,
    content: bytes | memoryview | Iterable[bytes],
    check: Callable[[Path], None] | None = None,
) -> None:
    """Write a file that is whole or not there.

    Args:
        path: The final name; a link of that name is replaced, its target stays as it is. The folder
            must exist.
        content: All of it, or its parts in order, which need not be in memory together; then give ``check``.
        check: Called with the temporary file before it gets the name; what it raises stops the
            writing. Without it the bytes are read back and compared.

    Raises:
        OutputError: The system refuses, for example since the disk is full; names the file.
    """
    path = Path(path)
    # Short whatever the final name is: names have a limit of 255 bytes.
    temporary = path.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}.tmp"
    try:
        try:
            _write_new(temporary, content)
            if check is not None:
                check(temporary)
            elif temporary.read_bytes() != content:
                raise OSError(errno.EIO, "what was read back is not what was written")
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        _sync_folder(path.parent)
    except OutputError:
        raise
    except OSError as error:
        raise _refused(path, error) from error


def write_text_atomic(path: str | Path, text: str) -> None:
    r"""Write UTF-8 text with ``\n`` line ends, whole or not at all; see ``write_bytes_atomic``."""
    write_bytes_atomic(path, text.encode("utf-8", "backslashreplace"))


def _write_new(path: Path, content: bytes | memoryview | Iterable[bytes]) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    with os.fdopen(descriptor, "wb") as file:
        for part in [content] if isinstance(content, bytes | memoryview) else content:
            file.write(part)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut, where the system lets a folder be synced."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES):
            raise
    finally:
        os.close(descriptor)


def _refused(path: Path, error: OSError) -> OutputError:
    what = {
        errno.ENOSPC: "the disk is full; make space and run again",
        errno.EDQUOT: "the quota is used up; make space and run again",
        errno.EROFS: "the disk is read-only",
        errno.EACCES: "permission denied",
        errno.ENOENT: "its folder does not exist",
        errno.EISDIR: "a folder has that name",
        errno.ENAMETOOLONG: "the name is too long",
    }.get(error.errno or 0, error.strerror or str(error))
    return OutputError(f"{shown(path)}: cannot be written in {path.parent}: {what}")
