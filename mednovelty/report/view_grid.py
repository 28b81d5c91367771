"""The grid that the interactive viewer shows: along the world's axes, of cubes, around the mask.

nilearn's viewer stores sagittal slices of such a grid. Scans are oblique, mirrored and have slices thicker
than they are wide; each voxel of the grid shows the voxel of the scan that its centre lies in. Where several
voxels fall into one of the grid, the highest score is shown: a peak is never lost, whatever the grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MOST_VOXELS = 1_200_000
"""Of the grid, at most; with more, a page would be larger than it may."""
_MARGIN_MM = 5.0


@dataclass(frozen=True, slots=True, eq=False)
class ViewGrid:
    """Cubes along the world's axes, and which voxel of the scan each shows.

    Attributes:
        shape: ``(X, Y, Z)``.
        affine: ``(4, 4)``: a positive diagonal and an origin, in RAS+ millimetres.
        source: ``(X * Y * Z,)`` flat index (C order) of the scan's voxel, -1 outside the scan.
        inside: ``(n,)`` flat index of the grid's voxel that each voxel of the mask falls into.
        mask: ``(n,)`` flat indices (C order) of the mask's voxels.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    source: np.ndarray
    inside: np.ndarray
    mask: np.ndarray

    @classmethod
    def over(cls, mask: np.ndarray, affine: np.ndarray, most_voxels: int = MOST_VOXELS) -> ViewGrid:
        """Lay a grid over a mask, as fine as the scan's finest spacing, or as is allowed.

        Args:
            mask: ``(I, J, K)`` bool, with at least one voxel.
            affine: ``(4, 4)`` to RAS+ millimetres.
            most_voxels: The grid is made coarser until it has no more.
        """
        flat = np.flatnonzero(mask)
        places = np.stack(np.unravel_index(flat, mask.shape), axis=1)
        world = places @ affine[:3, :3].T + affine[:3, 3]
        low, high = world.min(0), world.max(0)
        size = float(np.linalg.norm(affine[:3, :3], axis=0).min())
        while True:
            margin = np.ceil(_MARGIN_MM / size)
            # From a voxel's centre on: along the world's axes, cubes are the scan's own voxels.
            origin = low - margin * size
            shape = np.ceil((high - origin) / size - 1e-6).astype(int) + 1 + int(margin)
            if np.prod(shape) <= most_voxels:
                break
            size *= 1.05
        grid = np.diag([size, size, size, 1.0])
        grid[:3, 3] = origin
        x, y, z = (int(n) for n in shape)
        inside = np.ravel_multi_index(tuple(np.rint((world - origin) / size).astype(int).T), (x, y, z))
        return cls((x, y, z), grid, _source((x, y, z), grid, mask.shape, affine), inside, flat)

    def image(self, volume: np.ndarray) -> np.ndarray:
        """Return a background on the grid, ``(X, Y, Z)``: the scan's nearest voxel, 0 outside the scan."""
        found = volume.reshape(-1)[np.maximum(self.source, 0)].astype(np.float32)
        return np.where(self.source < 0, 0, found).reshape(self.shape)

    def scores(self, volume: np.ndarray) -> np.ndarray:
        """Return scores on the grid, ``(X, Y, Z)`` float32: NaN outside the mask, else never too low."""
        values = np.full(volume.size, np.nan, np.float32)
        values[self.mask] = volume.reshape(-1)[self.mask]
        found = np.where(self.source < 0, np.nan, values[np.maximum(self.source, 0)])
        # fmax passes over NaN: a voxel of the mask may fall where the nearest is outside it.
        np.fmax.at(found, self.inside, values[self.mask])
        return found.reshape(self.shape)


def _source(
    shape: tuple[int, int, int], grid: np.ndarray, scan: tuple[int, ...], affine: np.ndarray
) -> np.ndarray:
    """Return the scan's voxel that each voxel of the grid lies in, -1 for none."""
    to_scan = np.linalg.inv(affine) @ grid
    found = np.empty(shape, np.int64)
    plane = np.stack(np.meshgrid(np.arange(shape[1]), np.arange(shape[2]), indexing="ij"), axis=-1)
    for x in range(shape[0]):  # Plane by plane: coordinates of all voxels at once take much memory.
        at = plane @ to_scan[:3, 1:3].T + (to_scan[:3, 0] * x + to_scan[:3, 3])
        index = np.rint(at).astype(np.int64)
        good = ((index >= 0) & (index < np.array(scan))).all(-1)
        index = np.where(good[..., None], index, 0)
        flat = (index[..., 0] * scan[1] + index[..., 1]) * scan[2] + index[..., 2]
        found[x] = np.where(good, flat, -1)
    return found.reshape(-1)


__all__ = ["MOST_VOXELS", "ViewGrid"]
