"""The binary files of CIFAR-10: in colour, or grey as outliers that have nothing to do with what is novel.

1 byte label, 1024 bytes red, 1024 green, 1024 blue, row-major, image after image
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from mednovelty.errors import ScanError

SIDE = 32
RECORD_BYTES = 1 + 3 * SIDE**2
MOST_BYTES = 10_000 * RECORD_BYTES
"""Of a file as published; of a longer one no more is read."""
GREY = (0.299, 0.587, 0.114)
"""Shares of red, green and blue, ITU-R BT.601."""
TRAINING = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
TEST = ("test_batch.bin",)


def grey_images(folder: Path, names: Sequence[str], side: int) -> Tensor:
    """Return ``(n, side * side)`` float32 grey images between 0 and 1, smoothly made smaller or larger.

    Args:
        folder: Of the binary version of CIFAR-10.
        names: Files in it, ``TRAINING`` or ``TEST``.
        side: Pixels along each side; the files' have 32.

    Raises:
        ScanError: A file is missing or is not made of whole images; codes ``cifar.missing`` and
            ``cifar.size``.
    """
    planes = np.concatenate([_planes(folder / name) for name in names])
    grey = torch.from_numpy(planes).float().mul_(torch.tensor(GREY)[:, None] / 255).sum(1)
    images = grey.view(-1, 1, SIDE, SIDE)
    if side != SIDE:
        images = interpolate(images, size=(side, side), mode="bilinear", antialias=True, align_corners=False)
    return images.clamp(0, 1).flatten(1)


def labelled_colours(folder: Path, split: Literal["training", "test"]) -> tuple[np.ndarray, np.ndarray]:
    """Return ``(n, 3, 32, 32)`` uint8 images and their ``(n,)`` uint8 labels.

    Args:
        folder: Of the binary version of CIFAR-10.
        split: Of which files.

    Raises:
        ScanError: See ``grey_images``.
    """
    names = TRAINING if split == "training" else TEST
    records = np.concatenate([_records(folder / name) for name in names])
    return records[:, 1:].reshape(-1, 3, SIDE, SIDE), records[:, 0]


def _planes(path: Path) -> np.ndarray:
    """Return the ``(n, 3, 1024)`` uint8 colours of a file."""
    return _records(path)[:, 1:].reshape(-1, 3, SIDE**2)


def _records(path: Path) -> np.ndarray:
    """Return the ``(n, 3073)`` bytes of a file's labels and images."""
    try:
        with path.open("rb") as file:
            raw = np.frombuffer(file.read(MOST_BYTES), np.uint8)
    except FileNotFoundError as error:
        raise ScanError(f"{path.name}: not in {path.parent}", code="cifar.missing") from error
    if not len(raw) or len(raw) % RECORD_BYTES:
        raise ScanError(
            f"{path.name}: {len(raw)} bytes are no whole number of images of {RECORD_BYTES}; get the binary "
            "version of CIFAR-10 again",
            code="cifar.size",
        )
    return raw.reshape(-1, RECORD_BYTES)


__all__ = ["TEST", "TRAINING", "grey_images", "labelled_colours"]
