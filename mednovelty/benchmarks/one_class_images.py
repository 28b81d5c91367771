"""Images of one class as normals, and all classes to test on.

Ruff 2021, sections 2.2.4 and 3.1.2, normalises an image's contrast: its mean is subtracted and it is divided
by its mean magnitude; then all are scaled by the smallest and largest value of the normal class' training
images to between 0 and 1: so do the released codes, the text of the first tells the second alone. Images of
other classes may lie beyond. Section 2.3.4 leaves pixels between 0 and 1 as they are (``contrast``).

Its scenarios add images of the other nine classes to the training images (``Scenario``), of n normal ones:

    pollution   unlabelled, from all nine: n gamma_p / (1 - gamma_p), a share gamma_p of what is unlabelled
    labelled    known anomalies, from some classes: a share gamma_l of all that is trained on

The first are among the normals, held-out ones too, since nobody knows them. No image is both, which in the
released code can be. Of a single known class the seed is its number among the nine: nine seeds are the
thesis' nine experiments a class. More are drawn at random.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mednovelty.benchmarks.idx import flat
from mednovelty.benchmarks.image_sets import ImageSet
from mednovelty.errors import SettingsError
from mednovelty.seeds import numpy_generator
from mednovelty.voxel_cache import VoxelCache


@dataclass(frozen=True, slots=True)
class Scale:
    """What contrast-normalised images are brought to between 0 and 1 by.

    Attributes:
        low: What becomes 0.
        high: What becomes 1.
        contrast: Whether contrast is normalised; else images stay as they are.
    """

    low: float
    high: float
    contrast: bool = True

    @classmethod
    def of(cls, normals: Tensor) -> Scale:
        """Return smallest and largest value of ``(n, D)`` images, once their contrast is normalised."""
        values = contrast_normalised(normals)
        return cls(values.min().item(), values.max().item())

    def __call__(self, images: Tensor) -> Tensor:
        """Return ``(n, D)`` normalised images."""
        if not self.contrast:
            return images
        return (contrast_normalised(images) - self.low) / (self.high - self.low)


AS_THEY_ARE = Scale(0.0, 1.0, contrast=False)


@dataclass(frozen=True, slots=True)
class Scenario:
    """What there is in training besides normal images.

    Args:
        labelled: gamma_l: share of known anomalies in all training images.
        pollution: gamma_p: share of unknown anomalies in the unlabelled ones.
        known_classes: k_l: how many classes known anomalies are of.

    Raises:
        SettingsError: A number out of its range.
    """

    labelled: float = 0.0
    pollution: float = 0.0
    known_classes: int = 1

    def __post_init__(self) -> None:
        for name in ("labelled", "pollution"):
            if not 0 <= getattr(self, name) < 1:
                raise SettingsError(f"{name}={getattr(self, name)}: a share, at least 0 and below 1")
        if self.known_classes < 1:
            raise SettingsError(f"known_classes={self.known_classes}: at least 1")


@dataclass(frozen=True, eq=False)
class OneClass:
    """Images between 0 and 1, ``(n, D)`` float32 each, as they are, and how they are normalised.

    Attributes:
        training: Of the normal class.
        held_out: Likewise; a twentieth, at least two. Either has its share of unknown anomalies.
        test: All test images.
        novel: ``(m,)`` bool: which test images are of other classes.
        shape: ``(C, rows, columns)`` of an image.
        scale: By all training images of the normal class, however few are used.
        labelled: Known anomalies to train on.
        labelled_held_out: Likewise held out: a twentieth, at least one of two.
        known: The classes that they are of.
    """

    training: Tensor
    held_out: Tensor
    test: Tensor
    novel: np.ndarray
    shape: tuple[int, ...]
    scale: Scale
    labelled: Tensor
    labelled_held_out: Tensor
    known: tuple[int, ...] = ()


def one_class(
    images: ImageSet,
    label: int,
    *,
    seed: int,
    most: int = 0,
    scenario: Scenario | None = None,
    contrast: bool = True,
) -> OneClass:
    """Return the images of one training.

    Args:
        images: Of all classes.
        label: The normal class.
        seed: Decides which images are held out, which are left out if not all are used, and which anomalies
            there are.
        most: Normal training images used, with those held out; 0: all.
        scenario: Anomalies in training; None: there are none.
        contrast: Whether contrast is normalised.

    Raises:
        SettingsError: There are fewer images of other classes than a scenario asks for, or fewer classes.
    """
    scenario = scenario or Scenario()
    normal = torch.from_numpy(flat(images.training[images.labels == label]))
    order = torch.from_numpy(numpy_generator(seed, "images").permutation(len(normal))[: most or None])
    known, labelled, unknown = _anomalies(images, label, len(order), seed, scenario)
    unlabelled, seen = normal[order], normal
    if len(unknown):
        unlabelled = torch.cat([unlabelled, unknown])
        mixed = numpy_generator(seed, "polluted").permutation(len(unlabelled))
        unlabelled, seen = unlabelled[torch.from_numpy(mixed)], torch.cat([normal, unknown])
    held, apart = max(len(unlabelled) // 20, 2), max(len(labelled) // 20, min(len(labelled) // 2, 1))
    return OneClass(
        unlabelled[held:],
        unlabelled[:held],
        torch.from_numpy(flat(images.test)),
        images.truth != label,
        images.shape,
        Scale.of(seen) if contrast else AS_THEY_ARE,
        labelled[apart:],
        labelled[:apart],
        known,
    )


def known_among(others: np.ndarray, count: int, seed: int, label: int) -> tuple[int, ...]:
    """Return which of some other classes are known.

    Raises:
        SettingsError: There are not as many.
    """
    if count > len(others):
        raise SettingsError(f"known_classes={count}: there are {len(others)} other classes")
    if count == 1:
        return (int(others[seed % len(others)]),)
    drawn = numpy_generator(seed, "known classes", label).permutation(len(others))[:count]
    return tuple(sorted(int(others[i]) for i in drawn))


def _anomalies(
    images: ImageSet, label: int, n: int, seed: int, scenario: Scenario
) -> tuple[tuple[int, ...], Tensor, Tensor]:
    """Return the classes that are known, images of them, and unlabelled images of any other class.

    Args:
        images: Of all classes.
        label: The normal one.
        n: Normal images that are trained on and held out.
        seed: Decides which.
        scenario: How many.
    """
    others = np.unique(images.labels[images.labels != label])
    random = numpy_generator(seed, "anomalies", label)
    unknown = round(scenario.pollution / (1 - scenario.pollution) * n)
    wanted = round(scenario.labelled / (1 - scenario.labelled) * (n + unknown))
    known = known_among(others, scenario.known_classes, seed, label) if scenario.labelled else ()
    pool = random.permutation(np.flatnonzero(images.labels != label))
    count = max(wanted, 1) if known else 0
    # What is unlabelled does not depend on what is labelled, and no image is both.
    rest = pool[unknown:]
    of_known = np.isin(images.labels[rest], known)
    labelled = rest[of_known][:count]
    if len(labelled) < count or len(pool) < unknown:
        raise SettingsError(
            f"labelled={scenario.labelled:g}, pollution={scenario.pollution:g}: ask for {count} images of "
            f"classes {', '.join(map(str, known)) or 'none'} and {unknown} of any other, beside {n} normal "
            f"ones; there are {int(of_known.sum())} and {len(pool)}"
        )
    parts = (torch.from_numpy(flat(images.training[part])) for part in (labelled, pool[:unknown]))
    first, second = parts
    return known, first, second


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


__all__ = [
    "AS_THEY_ARE",
    "OneClass",
    "Scale",
    "Scenario",
    "contrast_normalised",
    "known_among",
    "one_class",
    "table_of",
]
