"""A folder of pictures as an image set: PNG, JPEG, TIFF and the like.

.. code-block:: text

    NAME/train/[CLASS/]*.png    images to train on; their folders, if there are any, are classes
    NAME/test/[CLASS/]*.png     images to test on
    NAME/*.png                  without the two: all are tested, as another set's are that is never trained on

Classes are numbered in the order of their names, over both parts. Pictures are as they are: all of one size
where they are trained on; of a set that is only tested, brought to the size of what was trained on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mednovelty.benchmarks.image_shapes import fitted
from mednovelty.errors import ScanError
from mednovelty.io.pictures import picture_files, read_colours

MOST_CLASSES = 256
"""Labels have 8 bits."""


class Pictures(NamedTuple):
    """Images and labels, of training and of test, as ``ImageSet`` has them."""

    training: np.ndarray
    labels: np.ndarray
    test: np.ndarray
    truth: np.ndarray


def has_pictures(folder: Path) -> bool:
    """Return whether a folder is there and has a picture somewhere."""
    return folder.is_dir() and bool(picture_files(folder))


def pictures_sha256(folder: Path) -> str:
    """Return the sha256 of the names and contents of all pictures of a folder."""
    digest = hashlib.sha256()
    for path in picture_files(folder):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        try:
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        except OSError as error:
            raise ScanError(f"{path}: cannot be read ({error.strerror})", code="images.damaged") from error
    return digest.hexdigest()


def picture_set(folder: Path, sides: Sequence[int] | None = None) -> Pictures:
    """Return the images of a folder.

    Args:
        folder: See the module.
        sides: Rows and columns that all are brought to; None: all are of one size.

    Raises:
        ScanError: A picture cannot be read; they are of several sizes (``images.sizes``) or of more than 256
            classes; or there are none to test on (``images.missing``).
    """
    parts = [folder / "train", folder / "test"]
    if not any(part.is_dir() for part in parts):
        parts = [folder / "train", folder]
    files = [picture_files(part) if part.is_dir() else [] for part in parts]
    if not files[1]:
        raise ScanError(f"{folder}: has no pictures in test/ to test on", code="images.missing")
    classes = sorted({_class(path, part) for part, some in zip(parts, files, strict=True) for path in some})
    if len(classes) > MOST_CLASSES:
        raise ScanError(f"{folder}: has {len(classes)} folders of classes; at most {MOST_CLASSES} are told "
                        "apart", code="images.classes")  # fmt: skip
    numbers = {name: number for number, name in enumerate(classes)}
    read = [
        _read([(path, numbers[_class(path, part)]) for path in some], sides)
        for part, some in zip(parts, files, strict=True)
    ]
    (training, labels), (test, truth) = read
    if len({image.shape for image in (*training, *test)}) > 1:
        sizes = sorted({image.shape[1:] for image in (*training, *test)})
        raise ScanError(
            f"{folder}: pictures are of {len(sizes)} sizes, from {sizes[0]} to {sizes[-1]} rows and columns; "
            "what is trained on must be of one size",
            code="images.sizes",
        )
    return _grey_if_all_are(training, labels, test, truth)


def _class(path: Path, part: Path) -> str:
    own = path.relative_to(part).parts
    return own[0] if len(own) > 1 else ""


def _read(
    files: Sequence[tuple[Path, int]], sides: Sequence[int] | None
) -> tuple[list[np.ndarray], list[int]]:
    images, labels = [], []
    for path, label in files:
        for image in read_colours(path):
            if sides is not None and image.shape[1:] != tuple(sides):
                small = fitted(image[None], (3, *sides)).view(3, *sides)
                image = np.round(255 * small.numpy()).astype(np.uint8)
            images.append(image)
            labels.append(label)
    return images, labels


def _grey_if_all_are(
    training: list[np.ndarray], labels: list[int], test: list[np.ndarray], truth: list[int]
) -> Pictures:
    shape = test[0].shape
    images = [np.stack(some) if some else np.empty((0, *shape), np.uint8) for some in (training, test)]
    if all((part == part[:, :1]).all() for part in images):
        images = [part[:, :1].copy() for part in images]
    return Pictures(images[0], np.array(labels, np.uint8), images[1], np.array(truth, np.uint8))


__all__ = ["Pictures", "has_pictures", "picture_set", "pictures_sha256"]
