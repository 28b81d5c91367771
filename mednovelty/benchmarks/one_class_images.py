"""Images of one class as normals, and all classes to test on.

Ruff 2021, sections 2.2.4 and 3.1.2, normalises an image's contrast: its mean is subtracted and it is divided
by its mean magnitude; then all are scaled by the smallest and largest value of the normal class' training
images to between 0 and 1: so do the released codes, the text of the first tells the second alone. Images of
other classes may lie beyond.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mednovelty.benchmarks.idx import flat
from mednovelty.benchmarks.image_sets import ImageSet
from mednovelty.seeds import numpy_generator
from mednovelty.voxel_cache import VoxelCache


@dataclass(frozen=True, slots=True)
class Scale:
    """What contrast-normalised images are brought to between 0 and 1 by."""

    low: float
    high: float

    @classmethod
    def of(cls, normals: Tensor) -> Scale:
        """Return smallest and largest value of ``(n, D)`` images, once their contrast is normalised."""
        values = contrast_normalised(normals)
        return cls(values.min().item(), values.max().item())

    def __call__(self, images: Tensor) -> Tensor:
        """Return ``(n, D)`` normalised images."""
        return (contrast_normalised(images) - self.low) / (self.high - self.low)


@dataclass(frozen=True, eq=False)
class OneClass:
    """Images between 0 and 1, ``(n, D)`` float32 each, as they are, and how they are normalised.

    Attributes:
        training: Of the normal class.
        held_out: Likewise; a twentieth, at least two.
        test: All test images.
        novel: ``(m,)`` bool: which test images are of other classes.
        shape: ``(C, rows, columns)`` of an image.
        scale: By all training images of the normal class, however few are used.
    """

    training: Tensor
    held_out: Tensor
    test: Tensor
    novel: np.ndarray
    shape: tuple[int, ...]
    scale: Scale


def one_class(images: ImageSet, label: int, *, seed: int, most: int = 0) -> OneClass:
    """Return the images of one training.

    Args:
        images: Of all classes.
        label: The normal class.
        seed: Decides which images are held out, and which are left out if not all are used.
        most: Training images used, with those held out; 0: all.
    """
    normal = torch.from_numpy(flat(images.training[images.labels == label]))
    order = torch.from_numpy(numpy_generator(seed, "images").permutation(len(normal))[: most or None])
    held = max(len(order) // 20, 2)
    return OneClass(
        normal[order[held:]],
        normal[order[:held]],
        torch.from_numpy(flat(images.test)),
        images.truth != label,
        images.shape,
        Scale.of(normal),
    )


def contrast_normalised(images: Tensor) -> Tensor:
    """Return ``(n, D)``: of each image its mean subtracted, divided by its mean magnitude then.

    Examples:
        >>> contrast_normalised(torch.tensor([[1.0, 3, 5, 7], [9, 9, 9, 9]])).tolist()
        [[-1.5, -0.5, 0.5, 1.5], [0.0, 0.0, 0.0, 0.0]]
    """
    rows = images - images.mean(1, keepdim=True)
    return rows / rows.abs().mean(1, keepdim=True).clamp_min(1e-6)


def table_of(rows: Tensor, shape: tuple[int, ...]) -> VoxelCache:
    """Return ``(n, D)`` rows as a training table of samples of a shape."""
    cache = VoxelCache(rows.shape[1], shape=shape)
    cache.append("images", rows.numpy())
    return cache


__all__ = ["OneClass", "Scale", "contrast_normalised", "one_class", "table_of"]
