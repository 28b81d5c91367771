"""Images changed at random while training: mirrored, turned, scaled, brightened, noisy, or with holes.

Zimmerer et al. 2019 train on images that are mirrored, turned by up to 0.1 rad, scaled by 0.9 to 1.2,
brightened by 0.95 to 1.1 and given noise (the released code; the paper does not say). MONAI makes the
changes; every random number follows from one generator.

The holes are those of context encoding (Zimmerer et al. 2018, "Context-encoding Variational Autoencoder
for Unsupervised Anomaly Detection", arXiv 1812.05941).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from mednovelty.errors import SettingsError

MOST_HOLES = 3


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How training images are changed; each image in its own way, anew at each pass.

    Args:
        mirror_axes: Axes of space, from 0, each mirrored in every other image. On axial slices and
            whole windows axis 0 is left and right.
        rotation_rad: Largest angle, about every axis.
        scale: Smallest and largest factor, drawn for each axis; above 1 the image shrinks.
        brightness: Smallest and largest factor of all values of an image.
        noise_sigma: Gaussian noise has a standard deviation between 0 and this, in units of x. (The
            library that the released code uses calls this number a variance.)
    """

    mirror_axes: tuple[int, ...] = (0,)
    rotation_rad: float = 0.1
    scale: tuple[float, float] = (0.9, 1.2)
    brightness: tuple[float, float] = (0.95, 1.1)
    noise_sigma: float = 0.05

    def __post_init__(self) -> None:
        for name in ("mirror_axes", "scale", "brightness"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if any(axis not in (0, 1, 2) for axis in self.mirror_axes):
            raise SettingsError(f"mirror_axes={self.mirror_axes}: axes of space are 0, 1 and 2")
        for name in ("scale", "brightness"):
            low, high = getattr(self, name)
            if not 0 < low <= high < math.inf:
                raise SettingsError(
                    f"{name}=({low}, {high}): the first must be positive and at most the second"
                )
        if not (0 <= self.rotation_rad <= math.pi and 0 <= self.noise_sigma < math.inf):
            raise SettingsError(
                f"rotation_rad={self.rotation_rad}, noise_sigma={self.noise_sigma}: must not be negative, "
                "the angle at most pi"
            )


def augmented(images: Tensor, how: Augmentation, generator: Generator) -> Tensor:
    """Return changed copies of ``(B, C, *space)`` images, of the same shape, dtype and device.

    Args:
        images: With two or three axes of space.
        how: What to change.
        generator: The same state gives the same images.

    Raises:
        SettingsError: An axis to mirror that the images do not have.
    """
    axes = images.ndim - 2
    if any(axis >= axes for axis in how.mirror_axes):
        raise SettingsError(f"mirror_axes={how.mirror_axes}: the images have {axes} axes of space, from 0")
    transform = _transform(how, axes)
    seed = torch.randint(2**31, (), generator=generator, device=generator.device).item()
    transform.set_random_state(seed=int(seed))
    return torch.stack([transform(image).as_tensor() for image in images]).to(images)


def with_holes(images: Tensor, generator: Generator) -> Tensor:
    """Return copies of ``(B, C, *space)`` images with up to three squares (cubes) cut out of each.

    Sides are up to half the longest side of the image; a hole is filled with one value, drawn between
    the image's smallest and largest, in all channels.

    Args:
        images: With any number of axes of space.
        generator: On the device of the images.
    """
    n, space = len(images), images.shape[2:]
    draws = torch.rand(n, MOST_HOLES, 3 + len(space), generator=generator, device=images.device)
    count = (draws[:, 0, 0] * (MOST_HOLES + 1)).floor()
    sides = 1 + (draws[:, :, 1] * (max(space) // 2)).floor()
    low, high = images.flatten(1).aminmax(dim=1)
    holed = images
    for hole in range(MOST_HOLES):
        inside = _box(space, sides[:, hole], draws[:, hole, 3:]) & _column(count > hole, len(space))
        value = low + (high - low) * draws[:, hole, 2]
        holed = torch.where(inside[:, None], _column(value, len(space))[:, None], holed)
    return holed


def _transform(how: Augmentation, axes: int) -> Any:
    # Imported here: MONAI takes seconds, and most trainings go without.
    from monai.transforms import Compose, RandAffine, RandFlip, RandGaussianNoise, RandScaleIntensity

    mirrors = [RandFlip(prob=0.5, spatial_axis=axis) for axis in how.mirror_axes]
    low, high = how.scale
    turn = RandAffine(
        prob=1.0,
        rotate_range=(how.rotation_rad,) * (1 if axes == 2 else 3),
        scale_range=((low - 1, high - 1),) * axes,
        padding_mode="border",
    )
    brighten = RandScaleIntensity(factors=(how.brightness[0] - 1, how.brightness[1] - 1), prob=1.0)
    return Compose([*mirrors, turn, brighten, RandGaussianNoise(prob=1.0, std=how.noise_sigma)])


def _box(space: torch.Size, sides: Tensor, places: Tensor) -> Tensor:
    """Return ``(B, *space)``, true in a box of these sides at places given as shares, ``(B, axes)``."""
    inside = torch.ones(1, dtype=torch.bool, device=sides.device)
    for axis, side in enumerate(space):
        first = (places[:, axis] * (side - sides + 1).clamp(min=1)).floor()
        at = torch.arange(side, device=sides.device)
        along = (at >= first[:, None]) & (at < (first + sides)[:, None])
        inside = inside[..., None] & along.view(-1, *[1] * axis, side)
    return inside


def _column(values: Tensor, axes: int) -> Tensor:
    return values.view(-1, *[1] * axes)


__all__ = ["MOST_HOLES", "Augmentation", "augmented", "with_holes"]
