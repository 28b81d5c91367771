"""A table on disk that is gone when its maker is."""

from __future__ import annotations

import tempfile
import weakref
from contextlib import suppress
from pathlib import Path

import numpy as np

from mednovelty.errors import OutputError


class ScratchTable:
    """A plain row-major float32 table without a header, in a file of its own.

    Where the system allows it, the file has no name any more once it is open, so that nothing is left
    behind by a killed process.

    Args:
        folder: Where the file lies; ``None``: the system's temporary folder.

    Raises:
        OutputError: No file can be made there.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = Path(tempfile.gettempdir()) if folder is None else folder
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.NamedTemporaryFile(  # noqa: SIM115 - closed by close()
                prefix="training-voxels-", suffix=".f32", dir=self._folder, delete=False
            )
        except OSError as error:
            message = f"{self._folder}: cannot make a file for training voxels ({error.strerror or error})"
            raise OutputError(message) from error
        path = Path(self._file.name)
        self._remove = weakref.finalize(self, path.unlink, missing_ok=True)
        with suppress(OSError):  # Windows keeps the name of an open file; _remove takes it later.
            path.unlink()

    def write(self, rows: np.ndarray) -> None:
        """Add ``(n, C)`` float32 rows.

        Raises:
            OutputError: The disk is full, or fails.
        """
        try:
            self._file.write(rows.data)
            self._file.flush()
        except OSError as error:
            written = (self._file.tell() + rows.nbytes) / 2**20
            raise OutputError(
                f"{self._folder}: cannot write {written:.0f} MiB of training voxels "
                f"({error.strerror or error}); free space or raise the byte budget"
            ) from error

    def map(self, rows: int, channels: int) -> np.memmap:
        """Return the ``(rows, channels)`` table; writing into it writes into the file."""
        return np.memmap(self._file, np.float32, "r+", shape=(rows, channels))

    def close(self) -> None:
        """Let go of the file; what is mapped of it stays readable."""
        self._file.close()
        self._remove()


__all__ = ["ScratchTable"]
