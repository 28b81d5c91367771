"""IDX files, in which MNIST and Fashion-MNIST are kept: read as what they are, or refused.

    2 bytes 0, 1 byte type, 1 byte number of axes, 4 bytes a side (big-endian), then the values, row-major.

Plain or gzipped. The header says how many bytes follow; as many are unpacked and one more is asked for,
so that neither a damaged file nor one that unpacks to terabytes takes more memory than its header says,
and that is limited.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from mednovelty.errors import ScanError

TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
LARGEST_BYTES = 1 << 30
MOST_AXES = 8


def read_idx(path: Path, *, largest_bytes: int = LARGEST_BYTES) -> np.ndarray:
    """Return the array of an IDX file, in the machine's own byte order.

    Args:
        path: Gzipped where its first two bytes say so.
        largest_bytes: Of values; a file that announces more is refused.

    Raises:
        ScanError: Not there, no IDX file, cut short, too long, damaged or too large; codes
            ``idx.missing``, ``idx.header``, ``idx.size``, ``idx.damaged`` and ``idx.too_large``.
    """
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            # A GzipFile reads as a binary file does.
            stream = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if packed else raw
            return _read(stream, path.name, largest_bytes)
    except FileNotFoundError as error:
        raise ScanError(f"{path.name}: not in {path.parent}", code="idx.missing") from error
    except (OSError, EOFError, zlib.error) as error:
        raise ScanError(
            f"{path.name}: cannot be unpacked ({error}); get it again", code="idx.damaged"
        ) from error


def labelled_images(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return ``(n, rows, columns)`` uint8 images and their ``(n,)`` uint8 labels.

    Args:
        folder: Holds the four files of MNIST or Fashion-MNIST under their usual names, plain or ``.gz``.
        split: ``train`` or ``t10k``.

    Raises:
        ScanError: As ``read_idx``; or the two do not fit each other, code ``idx.shape``.
    """
    images = read_idx(_found(folder, f"{split}-images-idx3-ubyte"))
    labels = read_idx(_found(folder, f"{split}-labels-idx1-ubyte"))
    if images.ndim != 3 or labels.shape != images.shape[:1] or not images.size:
        raise ScanError(
            f"{split}-images-idx3-ubyte: images of shape {images.shape} and labels of shape {labels.shape} "
            "are not (n, rows, columns) and (n,)",
            code="idx.shape",
        )
    if images.dtype != np.uint8 or labels.dtype != np.uint8:
        raise ScanError(
            f"{split}-images-idx3-ubyte: images are {images.dtype} and labels {labels.dtype}, not uint8",
            code="idx.shape",
        )
    return images, labels


def flat(images: np.ndarray) -> np.ndarray:
    """Return ``(n, D)`` float32 between 0 and 1 of ``(n, ...)`` images of 8 bits."""
    return images.reshape(len(images), math.prod(images.shape[1:])).astype(np.float32) / 255


def _read(stream: BinaryIO, name: str, largest_bytes: int) -> np.ndarray:
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in TYPES or not 1 <= magic[3] <= MOST_AXES:
        raise ScanError(
            f"{name}: begins with {magic.hex(' ') or 'nothing'}, so it is no IDX file", code="idx.header"
        )
    sides = stream.read(4 * magic[3])
    if len(sides) < 4 * magic[3]:
        raise ScanError(f"{name}: ends within its header", code="idx.header")
    shape = tuple(int(side) for side in np.frombuffer(sides, ">u4"))
    dtype = np.dtype(TYPES[magic[2]])
    size = math.prod(shape) * dtype.itemsize
    if size > largest_bytes:
        raise ScanError(
            f"{name}: announces {size} bytes of values {shape}; at most {largest_bytes} are read",
            code="idx.too_large",
        )
    values = stream.read(size)
    if len(values) < size or stream.read(1):
        there = f"{len(values)}" if len(values) < size else f"more than {size}"
        raise ScanError(
            f"{name}: its header {shape} announces {size} bytes of values, there are {there}", code="idx.size"
        )
    return np.frombuffer(values, dtype).reshape(shape).astype(dtype.newbyteorder("="))


def _found(folder: Path, name: str) -> Path:
    plain = folder / name
    return plain if plain.exists() else folder / f"{name}.gz"


__all__ = ["flat", "labelled_images", "read_idx"]
