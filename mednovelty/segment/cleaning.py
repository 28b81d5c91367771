"""What is done to flagged voxels before they are counted as clusters; all of it inside the mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import ndimage

from mednovelty.errors import SettingsError
from mednovelty.postprocess import masked_median


@dataclass(frozen=True)
class Cleaning:
    """How flagged voxels are cleaned.

    Attributes:
        kind: ``none``; ``median``: a voxel is flagged where more than half of the voxels of the mask in the
            cube around it are; ``opening``: what is thinner than ``2 size + 1`` voxels is taken away;
            ``closing``: gaps as thin are filled.
        size: Side of the median's cube in voxels, odd; steps of opening and closing.
    """

    kind: Literal["none", "median", "opening", "closing"] = "none"
    size: int = 1

    def __post_init__(self) -> None:
        if self.kind not in ("none", "median", "opening", "closing"):
            raise SettingsError(f"cleaning must be none, median, opening or closing, got {self.kind!r}")
        if self.kind == "median" and (self.size < 3 or self.size % 2 == 0):
            raise SettingsError(f"a median needs an odd side of 3 voxels or more, got {self.size}")
        if self.size < 1:
            raise SettingsError(f"{self.kind} needs 1 step or more, got {self.size}")

    @property
    def words(self) -> str:
        """What was done, in words; empty for nothing."""
        if self.kind == "none":
            return ""
        if self.kind == "median":
            return f"median over cubes of {self.size} voxels"
        return f"{self.kind}, {self.size} step{'s' * (self.size > 1)}"


def cleaned(flagged: np.ndarray, mask: np.ndarray, how: Cleaning) -> np.ndarray:
    """Return ``(I, J, K)`` bool: flagged voxels after cleaning, all of them in the mask.

    Voxels outside the mask have no part in a median, and take nothing from what is opened: a lesion at the
    border of the brain is not eaten from there. Closing fills no gap that reaches that border.

    Args:
        flagged: ``(I, J, K)`` bool, false outside the mask.
        mask: ``(I, J, K)`` bool.
        how: What to do.
    """
    if how.kind == "none" or not flagged.any():
        return flagged
    # Twice as wide as anything reaches: what is closed is grown by as much, and then looked at from outside.
    box = _box_around(flagged, 2 * how.size)
    inside, part = mask[box], flagged[box]
    if how.kind == "median":
        found = masked_median(part.astype(np.float32), inside, how.size) > 0.5
    elif how.kind == "opening":
        # Eroded and dilated within the mask: from its border on nothing is taken for healthy.
        eroded = ndimage.binary_erosion(part | ~inside, iterations=how.size, border_value=1) & part
        found = ndimage.binary_dilation(eroded, iterations=how.size, mask=part)
    else:
        grown = ndimage.binary_dilation(part, iterations=how.size, mask=inside)
        found = ndimage.binary_erosion(grown, iterations=how.size) | part
    out = np.zeros_like(flagged)
    out[box] = found
    return out


def _box_around(flagged: np.ndarray, margin: int) -> tuple[slice, ...]:
    """Return the smallest box that holds the flagged voxels and a margin around them."""
    along = [np.flatnonzero(flagged.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    return tuple(slice(max(int(at[0]) - margin, 0), int(at[-1]) + margin + 1) for at in along)


__all__ = ["Cleaning", "cleaned"]
