"""The images in distribution that ``ood`` trains on and tests, all of a set or all but a class."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from mednovelty.benchmarks.idx import flat
from mednovelty.benchmarks.image_methods import Split
from mednovelty.benchmarks.image_sets import ImageSet
from mednovelty.errors import ScanError, SettingsError
from mednovelty.seeds import numpy_generator


def split_of(
    images: ImageSet, left_out: int | None, seed: int, *, most: int = 0, test_images: int = 0
) -> tuple[Split, tuple[Tensor, Tensor]]:
    """Return images in distribution, and the classes of those trained on and of those held out, from 0.

    Args:
        images: Of the set.
        left_out: The class that is not trained on, and novel; None: none is.
        seed: Decides which images are held out, and which are left out if not all are used.
        most: Training images used, with those held out; 0: all.
        test_images: At most as many test images, the first; 0: all.

    Raises:
        ScanError: There is nothing to train on.
        SettingsError: There is no such class.
    """
    if not len(images.training):
        raise ScanError(
            "there are no images to train on; put them into a folder train", code="images.missing"
        )
    if left_out is not None and not ((images.labels == left_out).any() and (images.truth == left_out).any()):
        raise SettingsError(
            f"class {left_out} is not among those of the set: {', '.join(map(str, np.unique(images.truth)))}"
        )
    kept = np.arange(len(images.labels)) if left_out is None else np.flatnonzero(images.labels != left_out)
    first = slice(test_images or None)
    novel = np.zeros(len(images.test), bool) if left_out is None else images.truth == left_out
    normal, test = (torch.from_numpy(flat(some)) for some in (images.training[kept], images.test[first]))
    split = Split.of(normal, test, novel[first], images.shape, seed, most)
    # The order in which they were split, once more.
    order = numpy_generator(seed, "images").permutation(len(kept))[: most or None]
    classes = torch.from_numpy(np.unique(images.labels[kept], return_inverse=True)[1][order])
    held = len(split.held_out)
    return split, (classes[held:], classes[:held])


def labelled(split: Split, labels: tuple[Tensor, Tensor]) -> Split:
    """Return a split whose images to train on, and held out, end with the number of their class."""
    rows = (split.training, split.held_out)
    wide = [torch.cat([x, y[:, None].float()], dim=1) for x, y in zip(rows, labels, strict=True)]
    return replace(split, training=wide[0], held_out=wide[1])


__all__ = ["labelled", "split_of"]
