"""A NIfTI file that is read one volume after another, guarded.

Four rules: nothing is allocated before the header was held against the size of the
file; the 4-D scan never stands in memory; the file is read to its end, checksums included, and hashed in
the same pass; what nibabel, ITK and 3D Slicer would place differently is refused.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mednovelty.errors import ScanError
from mednovelty.io.guard import GuardedFile, shown
from mednovelty.io.nifti_header import LONGEST_HEADER, Layout, check, extension_warning, parse
from mednovelty.io.orientation import orientation
from mednovelty.io.streams import DEFLATE_MAX_RATIO, GZIP_MAGIC, Stream, open_stream
from mednovelty.scan import Grid

_LONGEST_EXTENSIONS = 16 << 20
_SMALL_GIB = 0.5


@dataclass(frozen=True, slots=True)
class NiftiSettings:
    """What is read, and what is refused from the header alone.

    Attributes:
        allow_unknown_orientation: Read files whose sform_code and qform_code are both 0.
        max_gib: Most voxels a file may hold, in GiB as stored.
        max_volume_gib: Most voxels one 3-D volume may hold, in GiB as stored.
        max_ratio: Most that files over 0.5 GiB may be compressed; what beats it is a bomb, not a scan.
    """

    allow_unknown_orientation: bool = False
    max_gib: float = 64.0
    max_volume_gib: float = 2.0
    max_ratio: float = 100.0


DEFAULTS = NiftiSettings()


class NiftiSource:
    """A NIfTI file whose header was checked; a ``VolumeSource``.

    Attributes:
        path: The file.
        name: What messages call it.
        grid: Where its voxels are.
        ndim: 3 or 4.
        n_channels: Volumes along the fourth dimension.
        dtype: Of the voxels, in this machine's byte order.
        slope: Multiplied onto stored voxels.
        inter: Added after it.
        warnings: What was odd; reading to the end may add to it.
    """

    def __init__(self, path: Path, settings: NiftiSettings = DEFAULTS) -> None:
        self.path = path
        self.name = shown(path)
        with GuardedFile(path) as file:
            self._identity = file.identity
            self._gzipped, block, stream = _begin(file)
            header = self._parsed(block)
            self._layout, self.warnings = check(header, self.name)
            _check_size(self._layout, file, self._gzipped, settings)
            self._read_extensions(header, block, stream)
        shape = self._layout.shape
        affine, more = orientation(header, shape, self.name, settings.allow_unknown_orientation)
        self.warnings += self._named_otherwise() + more
        self.grid = Grid((shape[0], shape[1], shape[2]), affine)
        self.ndim = len(shape)
        self.n_channels = shape[3] if self.ndim == 4 else 1
        self.dtype = self._layout.dtype.newbyteorder("=")
        self.slope, self.inter = self._layout.slope, self._layout.inter
        self._sha256 = ""

    @property
    def sha256(self) -> str:
        """Of the file's bytes; known once ``volumes`` is exhausted."""
        if not self._sha256:
            raise ValueError(f"{self.name}: its hash is known only after all volumes are read")
        return self._sha256

    def volumes(self) -> Generator[np.ndarray]:
        """Yield each volume, ``(I, J, K)`` in Fortran order, as stored; then verify the file to its end.

        The next volume is inflated in another thread while the caller works on this one.

        Raises:
            ScanError: Cut short, damaged, or changed since it was opened.
        """
        with GuardedFile(self.path, hashed=True) as file, ThreadPoolExecutor(1) as pool:
            file.check_unchanged(self._identity)
            stream = open_stream(file, self._gzipped)
            upcoming = pool.submit(self._first, stream)
            for channel in range(1, self.n_channels + 1):
                volume = upcoming.result()
                if channel < self.n_channels:
                    upcoming = pool.submit(self._volume, stream, channel)
                    yield volume
            verified = pool.submit(self._finish, file, stream)
            yield volume
            verified.result()

    def _first(self, stream: Stream) -> np.ndarray:
        _skip(stream, self._layout.offset, self.name)
        return self._volume(stream, 0)

    def _volume(self, stream: Stream, channel: int) -> np.ndarray:
        flat = np.empty(self._layout.volume_bytes, np.uint8)
        found = stream.readinto(flat.data)
        if found < flat.size:
            raise ScanError(
                f"{self.name}: cut short: its header promises {self._layout.n_bytes} bytes of voxels, "
                f"found {channel * flat.size + found}",
                code="file.cut_short",
            )
        volume = flat.view(self._layout.dtype)
        if not volume.dtype.isnative:
            volume = volume.byteswap(inplace=True).view(self.dtype)
        return volume.reshape(self.grid.shape, order="F")

    def _finish(self, file: GuardedFile, stream: Stream) -> None:
        left = stream.drain()
        file.check_unchanged(self._identity)
        if left:
            self.warnings.append(f"{self.name}: {left} bytes follow the voxels; ignored")
        self.warnings += stream.warnings
        self._sha256 = file.sha256

    def _parsed(self, block: bytes) -> Any:
        try:
            return parse(block, self.name)
        except ScanError as error:
            voxels = self.path.with_suffix(".img")
            if error.code == "file.pair" and not os.path.exists(voxels):
                what = f"its voxels' file {shown(voxels)} is missing"
                raise ScanError(f"{self.name}: {what}", code="file.pair") from error
            raise

    def _read_extensions(self, header: Any, block: bytes, stream: Stream) -> None:
        start = header.sizeof_hdr
        if self._layout.offset - start > _LONGEST_EXTENSIONS:
            raise ScanError(f"{self.name}: {self._layout.offset} bytes before the voxels, more than header "
                            "extensions can need", code="header.vox_offset")  # fmt: skip
        rest = bytearray(max(0, self._layout.offset - len(block)))
        found = stream.readinto(memoryview(rest))
        area = (block + rest[:found])[start : self._layout.offset]
        warning = extension_warning(area[:4], area[4:], header.endianness, self.name)
        if warning:
            self.warnings.append(warning)

    def _named_otherwise(self) -> list[str]:
        named_gz = self.path.name.lower().endswith(".gz")
        if named_gz == self._gzipped:
            return []
        what = "gzip, though not named .gz" if self._gzipped else "named .gz, but not gzip"
        return [f"{self.name}: {what}; read by its content"]


def _begin(file: GuardedFile) -> tuple[bool, bytes, Stream]:
    """Return whether the file is gzip, its first 540 inflated bytes, and the stream that goes on there."""
    gzipped = file.first(len(GZIP_MAGIC)) == GZIP_MAGIC
    block = bytearray(LONGEST_HEADER)
    stream = open_stream(file, gzipped)
    found = stream.readinto(memoryview(block))
    if gzipped and found < 348:
        raise ScanError(f"{file.name}: cut short inside its header ({found} bytes)", code="file.cut_short")
    return gzipped, bytes(block[:found]), stream


def _check_size(layout: Layout, file: GuardedFile, gzipped: bool, settings: NiftiSettings) -> None:
    """Hold what the header asks for against the limits and against the file's size."""
    gib, volume_gib = layout.n_bytes / 2**30, layout.volume_bytes / 2**30
    needed = layout.offset + layout.n_bytes
    most = DEFLATE_MAX_RATIO * file.size
    if gib > settings.max_gib:
        what = f"its header asks for {gib:.3g} GiB of voxels, over the limit of {settings.max_gib:g} GiB"
        raise ScanError(f"{file.name}: {what}", code="file.too_big")
    if not gzipped and needed > file.size:
        what = f"its header needs {needed} bytes, found {file.size}"
        raise ScanError(f"{file.name}: cut short: {what}", code="file.cut_short")
    if needed > most:
        what = f"its header needs {needed} bytes; {file.size} bytes of gzip cannot hold more than {most}"
        raise ScanError(f"{file.name}: cut short: {what}", code="file.cut_short")
    if volume_gib > settings.max_volume_gib:
        what = f"{volume_gib:.3g} GiB a volume, over the limit of {settings.max_volume_gib:g} GiB"
        raise ScanError(f"{file.name}: {what}", code="file.too_big")
    if gib > _SMALL_GIB and needed > settings.max_ratio * file.size:
        times = f"{needed / file.size:.0f} times, over the limit of {settings.max_ratio:g}"
        what = f"{gib:.3g} GiB of voxels are squeezed {times}, as no scan can be"
        raise ScanError(f"{file.name}: {what}", code="file.bomb")


def _skip(stream: Stream, n: int, name: str) -> None:
    block = bytearray(n)
    found = stream.readinto(memoryview(block))
    if found < n:
        raise ScanError(f"{name}: cut short before its voxels, which begin at byte {n}; found {found}",
                        code="file.cut_short")  # fmt: skip
