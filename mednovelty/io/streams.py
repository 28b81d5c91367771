"""The bytes of an image file, one after another: as they lie there, or inflated and checked.

Gzip members are inflated by isal, which compares each member's CRC-32 and length with its trailer;
nibabel, dipy and MONAI never do, so that one flipped bit becomes one wrong voxel.
"""

from __future__ import annotations

from typing import Protocol

from isal import igzip_lib
from isal.igzip_lib import IsalError

from mednovelty.errors import ScanError
from mednovelty.io.guard import GuardedFile

GZIP_MAGIC = b"\x1f\x8b"
DEFLATE_MAX_RATIO = 1032
"""No deflate stream can inflate to more than this many times its own size."""

_RAW_CHUNK = 1 << 17
_INFLATED_CHUNK = 1 << 16
"""Below malloc's threshold for fresh pages: larger blocks cost up to twice the time."""
_DRAIN_LIMIT = 64 << 20


class Stream(Protocol):
    """Bytes that can be read once, from the first to the last."""

    warnings: list[str]

    def readinto(self, target: memoryview) -> int:
        """Fill ``target``; fewer bytes than it holds only at the end."""

    def drain(self) -> int:
        """Read to the verified end; return how many bytes were left, or so many that it gave up."""


class PlainStream:
    """An uncompressed file."""

    def __init__(self, file: GuardedFile) -> None:
        self.warnings: list[str] = []
        self._file = file

    def readinto(self, target: memoryview) -> int:
        """Fill ``target``; fewer bytes than it holds only at the end."""
        filled = 0
        while filled < len(target) and (block := self._file.read(min(_INFLATED_CHUNK, len(target) - filled))):
            target[filled : filled + len(block)] = block
            filled += len(block)
        return filled

    def drain(self) -> int:
        """Read to the end; return how many bytes were left."""
        left = 0
        while block := self._file.read(_INFLATED_CHUNK):
            left += len(block)
        return left


class GzipStream:
    """One gzip file: one member or many, with or without zero padding.

    Raises:
        ScanError: While reading: cut short, damaged, or a checksum or length that does not fit.
    """

    def __init__(self, file: GuardedFile) -> None:
        self.warnings: list[str] = []
        self._file = file
        self._member = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
        self._pending = b""
        self._ended = False

    def readinto(self, target: memoryview) -> int:
        """Fill ``target``; fewer bytes than it holds only at the end."""
        filled = 0
        while filled < len(target) and (block := self._inflate(min(_INFLATED_CHUNK, len(target) - filled))):
            target[filled : filled + len(block)] = block
            filled += len(block)
        return filled

    def drain(self) -> int:
        """Verify every member to the end; return how many bytes were left.

        Raises:
            ScanError: More than 64 MiB follow what the header promised: a bomb, or another file.
        """
        left = 0
        while block := self._inflate(_INFLATED_CHUNK):
            left += len(block)
            if left > _DRAIN_LIMIT:
                what = f"inflates to more than {_DRAIN_LIMIT >> 20} MiB beyond what its header promises"
                raise ScanError(f"{self._file.name}: {what}", code="file.too_long")
        # What lies behind the last member still belongs to the file's hash.
        while self._file.read(_RAW_CHUNK):
            pass
        return left

    def _inflate(self, limit: int) -> bytes:
        """Return the next inflated bytes, at most ``limit``; none at the verified end."""
        while not self._ended:
            if self._member.eof:
                self._next_member()
                continue
            chunk = b""
            if self._member.needs_input:
                chunk = self._pending or self._file.read(_RAW_CHUNK)
                self._pending = b""
                if not chunk:
                    raise ScanError(
                        f"{self._file.name}: cut short: the gzip stream has no end and no checksum "
                        f"({self._file.size} bytes); fetch the file again",
                        code="gzip.cut_short",
                    )
            try:
                block = self._member.decompress(chunk, limit)
            except IsalError as error:  # type: ignore[misc]
                raise self._damaged(error) from error
            if block:
                return bytes(block)
        return b""

    def _next_member(self) -> None:
        """Go on to the member that follows the one just verified, or end."""
        rest = self._member.unused_data.lstrip(b"\0")
        while len(rest) < len(GZIP_MAGIC) and (more := self._file.read(_RAW_CHUNK)):
            rest = (rest + more).lstrip(b"\0")
        if rest.startswith(GZIP_MAGIC):
            self._member = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
            self._pending = rest
            return
        self._ended = True
        if rest:
            self.warnings.append(f"{self._file.name}: bytes that are no gzip follow the gzip stream; ignored")

    def _damaged(self, error: Exception) -> ScanError:
        what = "its checksum or length is wrong" if "checksum" in str(error) else "it cannot be inflated"
        return ScanError(f"{self._file.name}: damaged: {what}; fetch the file again", code="gzip.damaged")


def open_stream(file: GuardedFile, gzipped: bool) -> Stream:
    """Return the bytes of a file that stands at its beginning."""
    return GzipStream(file) if gzipped else PlainStream(file)
