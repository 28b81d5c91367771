"""Pictures that are no scans: PNG, TIFF, JPEG and the like, grey as outliers for networks, or in colour."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mednovelty.errors import ScanError
from mednovelty.io.guard import GuardedFile, shown

SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp", ".pgm", ".ppm")
LARGEST_BYTES, LARGEST_PIXELS = 256 << 20, 1 << 26
"""Of a file, and of all pictures in it; what is larger is not made to be shown at 64 pixels."""
COLOURS = np.array([0.299, 0.587, 0.114])
"""Weights of red, green and blue in grey, ITU-R BT.601."""


def picture_files(folder: Path) -> list[Path]:
    """Return the pictures anywhere below a folder, by their names' endings, sorted."""
    found = []
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        kept = (name for name in names if name.lower().endswith(SUFFIXES) and not name.startswith("."))
        found += [Path(root, name) for name in kept]
    return sorted(found)


def read_picture(path: Path) -> list[np.ndarray]:
    """Return the pictures of a file, each ``(H, W)`` float32, in its own unit.

    Args:
        path: With one picture, or several, as TIFF may have.

    Raises:
        ScanError: Absent, too large, damaged or of a kind that cannot be read (``picture.damaged``), or
            all of one value (``picture.constant``).
    """
    found = _decoded(path, _grey)
    for values in found:
        if not np.isfinite(values).all() or values.min() == values.max():
            what = f"every pixel is {values.flat[0]:g}" if np.isfinite(values).all() else "not finite"
            raise ScanError(f"{shown(path)}: shows nothing: {what}", code="picture.constant")
    return found


def read_colours(path: Path) -> list[np.ndarray]:
    """Return the pictures of a file, each ``(3, H, W)`` uint8: red, green, blue, alike where it is grey.

    Args:
        path: With one picture, or several, as TIFF may have.

    Raises:
        ScanError: Absent, too large or damaged, or its pixels have no range, as those of float32 TIFF
            (``picture.damaged``).
    """
    return _decoded(path, _colours)


def _decoded(path: Path, convert: Callable[[Any], np.ndarray]) -> list[np.ndarray]:
    """Return what ``convert`` makes of each picture of a file; errors as of ``read_picture``."""
    from PIL import Image, ImageSequence

    with GuardedFile(path) as file:
        if file.size > LARGEST_BYTES:
            raise ScanError(
                f"{file.name}: {file.size} bytes are too many for a picture", code="picture.large"
            )
        content = b"".join(iter(lambda: file.read(1 << 20), b""))
    found: list[np.ndarray] = []
    pixels = 0
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(content)) as image:
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            for frame in ImageSequence.Iterator(image):
                pixels += frame.width * frame.height
                if pixels > LARGEST_PIXELS:
                    what = f"more than {LARGEST_PIXELS} pixels, with picture {len(found) + 1}"
                    raise ScanError(f"{shown(path)}: {what}; give smaller ones", code="picture.large")
                found.append(convert(frame))
    except (ScanError, MemoryError):
        raise
    except Exception as error:  # Decoders answer damage with any error there is.
        raise ScanError(f"{shown(path)}: cannot be read as a picture: {error}",
                        code="picture.damaged") from error  # fmt: skip
    return found


def _grey(image: Any) -> np.ndarray:
    """Return ``(H, W)`` float32 of a picture of PIL's."""
    mode = image.mode
    if mode in ("1", "L", "F", "I") or mode.startswith("I;16"):
        return np.asarray(image, np.float32)
    values = np.asarray(image.convert("RGB"), np.float32)
    return np.asarray(values @ COLOURS, np.float32)


def _colours(image: Any) -> np.ndarray:
    """Return ``(3, H, W)`` uint8 of a picture of PIL's."""
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {image.mode} have no range; save it with 8 or 16 bits a colour")
    if image.mode.startswith("I;16"):
        # PIL would cut 16 bits off at 255 instead of scaling them.
        grey = np.round(np.asarray(image, np.float32) / 257).astype(np.uint8)
        return np.repeat(grey[None], 3, 0)
    return np.ascontiguousarray(np.moveaxis(np.asarray(image.convert("RGB"), np.uint8), 2, 0))


__all__ = ["SUFFIXES", "picture_files", "read_colours", "read_picture"]
