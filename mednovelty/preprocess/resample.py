"""Scans on voxels of another size, and maps from there back on the scan's own voxels.

Signals are interpolated linearly, averaged where voxels become larger, and only from voxels of the mask, so
that nothing of the outside bleeds in; masks take the nearest voxel. Both grids have one middle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mednovelty.errors import GeometryError, SettingsError
from mednovelty.interpolation import centred_positions, interpolation, nearest
from mednovelty.scan import Grid, Scan, Volume

_LARGEST_VOXELS = 1 << 28
_SLACK = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Resampled:
    """A scan on another grid, and the way back.

    Attributes:
        scan: On the new grid.
        original_mask: ``(I, J, K)`` bool of the scan as it was.
        original_grid: Its voxels.
    """

    scan: Scan
    original_mask: np.ndarray
    original_grid: Grid

    def back(self, volume: Volume) -> Volume:
        """Return a map ``(1, I', J', K')`` on the original voxels, 0 outside the original mask.

        Raises:
            GeometryError: The map is not on the new grid.
        """
        volume.grid.check_same(self.scan.grid, volume.name, f"the resampled {self.scan.id}")
        shape, steps = self.original_grid.shape, _steps(self.scan.grid, self.original_grid)
        mask = self.scan.mask
        data = _interpolated(volume.data[:1], mask, shape, steps, clamp=True)
        data[:, ~self.original_mask] = 0
        return Volume(data, self.original_grid.affine, volume.name)


def resample(scan: Scan, spacing_mm: float | Sequence[float]) -> Resampled:
    """Return a scan on voxels of another size, with the way back for its maps.

    Args:
        scan: Any scan.
        spacing_mm: Distance of two voxels, one for all axes or one each for I, J and K.

    Raises:
        SettingsError: A spacing is not above 0, or would make too many voxels.
    """
    wanted = np.broadcast_to(np.asarray(spacing_mm, float), 3)
    if not (np.isfinite(wanted).all() and (wanted > 0).all()):
        raise SettingsError(f"resample: spacing_mm must be above 0, got {spacing_mm}")
    grid = _grid(scan, wanted)
    steps = _steps(scan.grid, grid)
    index = [nearest(n, m, step) for n, m, step in zip(scan.grid.shape, grid.shape, steps, strict=True)]
    mask = np.asfortranarray(scan.mask[np.ix_(*index)])
    dense = _interpolated(scan.dense(), scan.mask, grid.shape, steps)
    everywhere = np.ones(scan.grid.shape, bool)
    background = _interpolated(scan.background[None], everywhere, grid.shape, steps, clamp=True)[0]
    stored = dense.reshape(len(dense), -1, order="F")[:, np.flatnonzero(mask.ravel(order="F"))]
    n = scan.n_channels
    changed = replace(
        scan, stored=np.ascontiguousarray(stored), scale=np.ones(n), offset=np.zeros(n), mask=mask,
        grid=grid, background=background,
    )  # fmt: skip
    return Resampled(changed, scan.mask, scan.grid)


def carried(marked: np.ndarray, source: Grid, target: Grid) -> np.ndarray:
    """Return a marked region on another grid that ``resample`` makes; none of it is lost, however thin.

    A voxel of the new grid is marked where it is the nearest of a marked one, or a marked one is its nearest.

    Args:
        marked: ``(I, J, K)`` bool on the source's voxels.
        source: Where it is marked.
        target: With axes along the source's.

    Raises:
        GeometryError: The axes of the grids are not parallel.
    """
    steps = _steps(source, target)
    if not np.allclose(source.affine[:3, :3] * steps, target.affine[:3, :3]):
        raise GeometryError("a region cannot be carried to a grid with other axes", code="geometry.axes")
    sides = list(zip(source.shape, target.shape, steps, strict=True))
    found = marked[np.ix_(*[nearest(n, m, step) for n, m, step in sides])]
    there = [nearest(m, n, 1 / step) for n, m, step in sides]
    found[tuple(along[place] for along, place in zip(there, np.nonzero(marked), strict=True))] = True
    return found


@dataclass(frozen=True, slots=True)
class Resample:
    """Brings a scan to voxels of one size; its maps come back on the scan's own.

    Args:
        spacing_mm: Distance of two voxels along each axis; or three: along the axes that lie nearest to left
            and right, back and front, and down and up, however the scan is stored, such as ``(1, 1, 5)`` for
            thin slices to be as thick as those that a detector knows.
    """

    spacing_mm: float | tuple[float, float, float] = 1.0

    def __post_init__(self) -> None:
        if isinstance(self.spacing_mm, list):  # As a file has it.
            object.__setattr__(self, "spacing_mm", tuple(self.spacing_mm))

    def __call__(self, scan: Scan) -> Scan:
        """Return the scan on voxels of that size.

        Raises:
            SettingsError: The size is not above 0, or would make too many voxels.
        """
        from nibabel.orientations import io_orientation

        if not isinstance(self.spacing_mm, tuple):
            return resample(scan, self.spacing_mm).scan
        world = io_orientation(scan.grid.affine)[:, 0].astype(int)
        return resample(scan, [self.spacing_mm[axis] for axis in world]).scan

    def state(self) -> dict[str, Any]:
        """Return the settings."""
        given = self.spacing_mm
        return {"spacing_mm": list(given) if isinstance(given, tuple) else given}


def _grid(scan: Scan, spacing_mm: np.ndarray) -> Grid:
    """Return the grid of that spacing that covers the scan's voxels, around the same middle."""
    steps = spacing_mm / scan.grid.spacing_mm
    i, j, k = (max(1, int(np.ceil(n / s - _SLACK))) for n, s in zip(scan.grid.shape, steps, strict=True))
    if i * j * k > _LARGEST_VOXELS:
        raise SettingsError(f"resample: {scan.id} would have {i} x {j} x {k} voxels; choose larger ones")
    affine = scan.grid.affine.copy()
    first = [centred_positions(n, m, s)[0] for n, m, s in zip(scan.grid.shape, (i, j, k), steps, strict=True)]
    affine[:3, 3] += affine[:3, :3] @ first
    affine[:3, :3] *= steps
    return Grid((i, j, k), affine)


def _steps(source: Grid, target: Grid) -> list[float]:
    """Return how many voxels of one grid lie between two of the other, along each axis."""
    return [float(step) for step in target.spacing_mm / source.spacing_mm]


def _interpolated(
    data: np.ndarray,
    mask: np.ndarray,
    shape: tuple[int, int, int],
    steps: list[float],
    *,
    clamp: bool = False,
) -> np.ndarray:
    """Return ``(C, *shape)`` float32 interpolated from the voxels of a mask.

    A sample that has none of them around gets the value of the nearest.
    """
    matrices = [
        interpolation(n, m, step, clamp=clamp) for n, m, step in zip(mask.shape, shape, steps, strict=True)
    ]
    weight = _apply(matrices, mask.astype(np.float32))
    out = np.stack([_apply(matrices, np.where(mask, channel, 0).astype(np.float32)) for channel in data])
    known = weight > _SLACK
    np.divide(out, weight, out=out, where=known)
    if not known.all() and known.any():
        from scipy.ndimage import distance_transform_edt

        place = distance_transform_edt(~known, return_distances=False, return_indices=True)
        out = out[(slice(None), *place)]
    return out


def _apply(matrices: list[np.ndarray], volume: np.ndarray) -> np.ndarray:
    for axis, matrix in enumerate(matrices):
        volume = np.moveaxis(np.tensordot(matrix, volume, (1, axis)), 0, axis)
    return np.ascontiguousarray(volume)
