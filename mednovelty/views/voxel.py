"""One sample per voxel, as in q-space novelty detection (Vasilev et al. 2018, Sec. 3.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mednovelty.scan import Scan, Volume


@dataclass(frozen=True, slots=True)
class VoxelSettings:
    """A voxel is a voxel: there is nothing to set."""


class VoxelView:
    """Cuts a scan into the voxels of its mask, and puts scores back where they came from.

    Args:
        settings: There are none.
    """

    Settings: ClassVar[type] = VoxelSettings

    def __init__(self, settings: VoxelSettings | None = None) -> None:
        self.settings = settings or VoxelSettings()

    def shape(self, channels: int) -> tuple[int, ...]:
        """Return ``(C,)``."""
        return (channels,)

    def count(self, scan: Scan) -> int:
        """Return how many voxels the mask has."""
        return scan.n_voxels

    def spacing_mm(self, scan: Scan) -> tuple[()]:
        """Return nothing: a sample is one voxel and has no axes."""
        return ()

    def cut(self, scan: Scan, start: int, stop: int) -> np.ndarray:
        """Return voxels ``start`` to ``stop``, ``(stop - start, C)`` float32, in the mask's order."""
        return scan.voxels(start, stop)

    def centres(self, scan: Scan, start: int, stop: int) -> np.ndarray:
        """Return ``(stop - start, 3)`` indices of voxels ``start`` to ``stop`` along I, J and K."""
        places = np.flatnonzero(scan.mask.ravel(order="F"))[start:stop]
        return np.stack(np.unravel_index(places, scan.mask.shape, order="F"), axis=1)

    def assemble(self, scan: Scan, scores: np.ndarray, name: str) -> Volume:
        """Return the map ``(1, I, J, K)`` of ``(n,)`` scores, 0 outside the mask."""
        return scan.assemble(scores, name)

    def touches(self, scan: Scan, lesion: np.ndarray, start: int, stop: int) -> np.ndarray:
        """Return ``(stop - start,)`` bool: whether voxels lie in a lesion ``(I, J, K)``."""
        places = np.flatnonzero(scan.mask.ravel(order="F"))[start:stop]
        return lesion.ravel(order="F")[places].astype(bool)
