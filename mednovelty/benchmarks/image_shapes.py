"""Images of one set made like those of another: as large, and as colourful.

Colours become grey by ITU-R BT.601, grey is the same in all colours; sides are stretched each by itself,
bilinearly, smoothed where they get smaller.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from mednovelty.errors import SettingsError

GREY = (0.299, 0.587, 0.114)
"""Shares of red, green and blue."""
AT_A_TIME = 5000


def fitted(images: np.ndarray, shape: Sequence[int]) -> Tensor:
    """Return ``(n, D)`` float32 images between 0 and 1 of another shape.

    Args:
        images: ``(n, C, rows, columns)`` uint8.
        shape: ``(C, rows, columns)`` of those that are wanted.

    Raises:
        SettingsError: Neither set is of one channel or of three, and they have not as many.
    """
    parts = [images[i : i + AT_A_TIME] for i in range(0, len(images), AT_A_TIME)]
    return torch.cat([_fitted(part, tuple(shape)) for part in parts] or [torch.empty(0, int(np.prod(shape)))])


def _fitted(images: np.ndarray, shape: tuple[int, ...]) -> Tensor:
    channels, sides = images.shape[1], images.shape[2:]
    planes = torch.from_numpy(np.ascontiguousarray(images)).float().flatten(2)
    if channels == 3 and shape[0] == 1:
        planes = planes.mul_(torch.tensor(GREY)[:, None] / 255).sum(1, keepdim=True)
    elif channels == 1 or channels == shape[0]:
        planes = planes.div_(255).expand(-1, shape[0], -1)
    else:
        raise SettingsError(
            f"images of {channels} channels cannot be made into such of {shape[0]}; only grey and colours can"
        )
    found = planes.reshape(-1, shape[0], *sides)
    if sides != shape[1:]:
        found = interpolate(found, size=shape[1:], mode="bilinear", antialias=True, align_corners=False)
    return found.clamp(0, 1).flatten(1)


__all__ = ["GREY", "fitted"]
