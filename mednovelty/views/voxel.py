"""One sample per voxel, as in q-space novelty detection (Vasilev et al. 2018, Sec. 3.1)."""

from __future__ import annotations

import numpy as np

from mednovelty.scan import Scan, Volume


class VoxelView:
    """Cuts a scan into the voxels of its mask, and puts scores back where they came from."""

    def count(self, scan: Scan) -> int:
        """Return how many voxels the mask has."""
        return scan.n_voxels

    def cut(self, scan: Scan, start: int, stop: int) -> np.ndarray:
        """Return voxels ``start`` to ``stop``, ``(stop - start, C)`` float32, in the mask's order."""
        return scan.voxels(start, stop)

    def assemble(self, scan: Scan, scores: np.ndarray, name: str) -> Volume:
        """Return the map ``(1, I, J, K)`` of ``(n,)`` scores, 0 outside the mask."""
        return scan.assemble(scores, name)
