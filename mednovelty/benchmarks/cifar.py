"""The binary files of CIFAR-10 and CIFAR-100.

1 byte label (of CIFAR-100 2: 20 classes, then 100), 1024 bytes red, 1024 green, 1024 blue, row-major, image
after image
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from mednovelty.errors import ScanError

SIDE = 32
PIXEL_BYTES = 3 * SIDE**2
RECORD_BYTES = 1 + PIXEL_BYTES
"""Of CIFAR-10."""
TRAINING = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
TEST = ("test_batch.bin",)


class Layout(NamedTuple):
    """Which files there are, and how they are made.

    Attributes:
        training: Their names.
        test: Theirs.
        label_bytes: Before each image; the last is its class.
        most: Images a file, as published; of a longer one no more is read.
    """

    training: tuple[str, ...]
    test: tuple[str, ...]
    label_bytes: int
    most: int


LAYOUTS = {
    "cifar": Layout(TRAINING, TEST, 1, 10_000),
    "cifar100": Layout(("train.bin",), ("test.bin",), 2, 50_000),
}
"""By the format that a manifest names."""


def labelled_colours(
    folder: Path, split: Literal["training", "test"], layout: Layout = LAYOUTS["cifar"]
) -> tuple[np.ndarray, np.ndarray]:
    """Return ``(n, 3, 32, 32)`` uint8 images and their ``(n,)`` uint8 labels.

    Args:
        folder: Of the binary version.
        split: Of which files.
        layout: Of which set.

    Raises:
        ScanError: A file is missing or is not made of whole images; codes ``cifar.missing`` and
            ``cifar.size``.
    """
    names = layout.training if split == "training" else layout.test
    records = np.concatenate([_records(folder / name, layout) for name in names])
    before = layout.label_bytes
    return records[:, before:].reshape(-1, 3, SIDE, SIDE), records[:, before - 1]


def _records(path: Path, layout: Layout) -> np.ndarray:
    """Return the ``(n, 3073)`` bytes of a file's labels and images, of CIFAR-100 ``(n, 3074)``."""
    width = layout.label_bytes + PIXEL_BYTES
    try:
        with path.open("rb") as file:
            raw = np.frombuffer(file.read(layout.most * width), np.uint8)
    except FileNotFoundError as error:
        raise ScanError(f"{path.name}: not in {path.parent}", code="cifar.missing") from error
    if not len(raw) or len(raw) % width:
        which = "CIFAR-10" if layout.label_bytes == 1 else "CIFAR-100"
        raise ScanError(
            f"{path.name}: {len(raw)} bytes are no whole number of images of {width}; get the binary version "
            f"of {which} again",
            code="cifar.size",
        )
    return raw.reshape(-1, width)


__all__ = ["LAYOUTS", "PIXEL_BYTES", "RECORD_BYTES", "TEST", "TRAINING", "Layout", "labelled_colours"]
