"""Gaussian smoothing of maps that keeps a constant constant up to the border.

Near a border the part of the kernel that lies outside is left out, and what is left is scaled up to sum to
1. Zero padding, which the released code of Zimmerer et al. (2019) has, darkens a map there: to 0.345 in the
corners of a constant one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mednovelty.errors import SettingsError
from mednovelty.types import VoxelScores

_LEAST_PX = 0.1
"""Below this the next pixel weighs exp(-50): nothing."""


@dataclass(frozen=True, slots=True)
class Blur:
    """Smooths maps along all their axes, one axis after the other.

    Attributes:
        sigma_px: Of the Gaussian, in pixels: one number for every axis, or one an axis; 0 leaves an axis as
            it is.
        truncate: The kernel ends after this many sigmas, rounded to whole pixels, at least one.
    """

    sigma_px: float | tuple[float, ...] = 3.0
    truncate: float = 1.0

    def __call__(self, maps: VoxelScores) -> VoxelScores:
        """Return ``(B, *space)`` smoothed maps.

        Raises:
            ValueError: There is one sigma an axis, but for another number of axes.
        """
        axes = maps.ndim - 1
        sigmas = self.sigma_px if isinstance(self.sigma_px, tuple) else (self.sigma_px,) * axes
        if len(sigmas) != axes:
            raise ValueError(f"smoothing has a sigma for {len(sigmas)} axes, the maps have {axes}")
        for axis, sigma in enumerate(sigmas, start=1):
            if sigma > _LEAST_PX:
                radius = max(1, int(self.truncate * sigma + 0.5))
                maps = _along(maps, axis, _weights(maps.shape[axis], sigma, radius, maps))
        return maps


RELEASED = Blur()
"""The released code's kernel: 7 pixels wide, sigma 3 pixels."""


@dataclass(frozen=True, slots=True)
class Smoothing:
    """How widely gradient maps are smoothed; ``on`` says what that is on a grid.

    The defaults are the released code's kernel, ``RELEASED``.

    Attributes:
        sigma: Of the Gaussian, in ``unit``; 0 smooths nothing.
        unit: ``px``, or ``mm``: then it differs from grid to grid, and from axis to axis.
        truncate: The kernel ends after this many sigmas, rounded to whole pixels, at least one.
    """

    sigma: float = 3.0
    unit: Literal["px", "mm"] = "px"
    truncate: float = 1.0

    def __post_init__(self) -> None:
        if not (0 <= self.sigma < float("inf") and 0 < self.truncate < float("inf")):
            raise SettingsError(
                f"smoothing needs sigma >= 0 and truncate > 0, got {self.sigma} and {self.truncate}"
            )
        if self.unit not in ("px", "mm"):
            raise SettingsError(f"smoothing: unit is px or mm, got {self.unit!r}")

    def on(self, spacing_mm: tuple[float, ...] | None) -> Blur:
        """Return the smoothing on a grid of that spacing, a number for each axis of a sample.

        Raises:
            SettingsError: The width is in mm and the spacing is not known.
        """
        if self.unit == "px":
            return Blur(self.sigma, self.truncate)
        if spacing_mm is None:
            raise SettingsError(
                f"smoothing over {self.sigma} mm needs the spacing of the voxels, which is not known here; "
                "give its sigma in pixels: unit = 'px'"
            )
        return Blur(tuple(self.sigma / abs(spacing) for spacing in spacing_mm), self.truncate)


def _weights(length: int, sigma: float, radius: int, like: Tensor) -> Tensor:
    """Return ``(length, length)`` weights: row i says what makes the smoothed value i, and sums to 1.

    Over the axes of a map the rows multiply, so that this is the kernel's part within the map over its sum.
    """
    place = torch.arange(length, device=like.device, dtype=like.dtype)
    offset = place - place[:, None]
    weights = torch.exp(-0.5 * (offset / sigma).square()) * (offset.abs() <= radius)
    return weights / weights.sum(1, keepdim=True)


def _along(maps: Tensor, axis: int, weights: Tensor) -> Tensor:
    # A product with a band of weights: on maps of these sizes quicker than a convolution of one channel.
    if axis == maps.ndim - 1:
        return maps @ weights.T
    return (weights @ maps.flatten(axis + 1).flatten(0, axis - 1)).reshape(maps.shape)
