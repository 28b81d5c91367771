"""Which voxel axis runs along which axis of the world, and arrays turned accordingly.

Scans of one cohort may be stored along different axes; a network that sees their slices or windows should
not see some of them mirrored.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment


@dataclass(frozen=True, slots=True)
class Turn:
    """An order of the three voxel axes and which of them are reversed.

    Attributes:
        order: Voxel axes, in the order of the turned array.
        flips: Whether the turned array runs backwards along each of its axes.
    """

    order: tuple[int, int, int]
    flips: tuple[bool, bool, bool] = (False, False, False)

    def __call__(self, volume: np.ndarray) -> np.ndarray:
        """Return a view of ``(*any, I, J, K)`` with its last three axes turned."""
        lead = volume.ndim - 3
        turned: np.ndarray = volume.transpose(*range(lead), *(lead + axis for axis in self.order))
        axes = tuple(lead + axis for axis, flip in enumerate(self.flips) if flip)
        flipped: np.ndarray = np.flip(turned, axes)
        return flipped

    def shape(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        """Return the shape of a turned ``(I, J, K)``."""
        first, second, third = (shape[axis] for axis in self.order)
        return first, second, third

    def points(self, at: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Return, along I, J and K, ``(n, 3)`` places that are ``at`` along the turned axes of a volume.

        Args:
            at: Indices, or anything between.
            shape: ``(I, J, K)``.
        """
        found = np.empty(at.shape)
        for turned, (axis, flip) in enumerate(zip(self.order, self.flips, strict=True)):
            found[:, axis] = shape[axis] - 1 - at[:, turned] if flip else at[:, turned]
        return found

    def box(self, where: list[tuple[int, int]], shape: tuple[int, ...]) -> tuple[slice, slice, slice]:
        """Return, along I, J and K, the box that lies from ``start`` to ``stop`` along the turned axes."""
        found = [slice(0, 0)] * 3
        for axis, flip, (start, stop) in zip(self.order, self.flips, where, strict=True):
            n = shape[axis]
            found[axis] = slice(n - stop, n - start) if flip else slice(start, stop)
        return found[0], found[1], found[2]


STORED = Turn((0, 1, 2))


def to_ras(affine: np.ndarray) -> Turn:
    """Return the turn after which the axes run, as nearly as they can, to the right, the front and up.

    Args:
        affine: ``(4, 4)``, voxel indices to RAS+ millimetres.

    Examples:
        >>> to_ras(np.diag([-2.0, 3.0, 1.0, 1.0]))
        Turn(order=(0, 1, 2), flips=(True, False, False))
    """
    cosines = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    world, voxel = linear_sum_assignment(-np.abs(cosines))
    x, y, z = (int(axis) for axis in voxel)
    backwards = cosines[world, voxel] < 0
    return Turn((x, y, z), (bool(backwards[0]), bool(backwards[1]), bool(backwards[2])))
