"""One voxel of a scan: which it is, where in words, how high its score stands; and which to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mednovelty.errors import GeometryError, SettingsError
from mednovelty.scan import Grid

APART_MM = 10.0
"""Peaks nearer to a higher one than this are not told beside it."""
SIDES = (("right", "left"), ("forward", "back"), ("up", "down"))
LETTERS = (("R", "L"), ("A", "P"), ("S", "I"))
Index = tuple[int, int, int]
Place = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Standing:
    """How high a voxel's score stands among others.

    Attributes:
        above: How many of these score as high or higher.
        of: How many there are.
        among: What they are, in words.
    """

    above: int
    of: int
    among: str

    @property
    def share(self) -> float:
        """The share that scores as high or higher."""
        return self.above / self.of


def voxel_at(grid: Grid, mask: np.ndarray, mm: Sequence[float], name: str) -> Index:
    """Return the voxel whose centre is nearest to a place in the world.

    Args:
        grid: The scan's.
        mask: ``(I, J, K)`` bool, of the voxels that have scores.
        mm: x, y, z in RAS+ millimetres: to the right, the front and up.
        name: The scan's, for messages.

    Raises:
        GeometryError: The place is not in the scan (``geometry.outside``), or not in its mask; the message
            says where the nearest voxel of the mask is.
    """
    at = np.linalg.solve(grid.affine, np.array([*mm, 1.0], np.float64))[:3]
    i, j, k = (int(n) for n in np.rint(at))
    told = ", ".join(f"{value:g}" for value in mm)
    if not all(0 <= n < size for n, size in zip((i, j, k), grid.shape, strict=True)):
        corners = np.array(np.meshgrid(*[[0, n - 1] for n in grid.shape], [1])).reshape(4, -1)
        ends = (grid.affine @ corners)[:3]
        box = "; ".join(
            f"{axis} {low:.0f} to {high:.0f}"
            for axis, low, high in zip("xyz", ends.min(1), ends.max(1), strict=True)
        )
        raise GeometryError(
            f"{name}: {told} mm lies outside the scan, whose corners span {box} mm (RAS: right, front, up)",
            code="geometry.outside",
        )
    if not mask[i, j, k]:
        inside = np.argwhere(mask)
        away_mm = np.linalg.norm((inside - at) @ grid.affine[:3, :3].T, axis=1)
        nearest = mm_of(grid, inside[int(away_mm.argmin())])
        raise GeometryError(
            f"{name}: {told} mm lies outside the brain mask, where no score is; its nearest voxel is at "
            f"{','.join(f'{value:.1f}' for value in nearest)} mm, {away_mm.min():.1f} mm away",
            code="geometry.outside",
        )
    return i, j, k


def mm_of(grid: Grid, voxel: Sequence[int] | np.ndarray) -> Place:
    """Return the centre of a voxel in RAS+ millimetres."""
    x, y, z = grid.affine[:3, :3] @ np.asarray(voxel, np.float64) + grid.affine[:3, 3]
    return float(x), float(y), float(z)


def in_words(mm: Sequence[float]) -> str:
    """Return a place in words.

    Examples:
        >>> in_words((10.2, -32, 24.4))
        "10 mm right, 32 mm back and 24 mm up from the scan's origin"
    """
    across, along, up = (
        f"{abs(value):.0f} mm {plus if value >= 0 else minus}"
        for value, (plus, minus) in zip(mm, SIDES, strict=True)
    )
    return f"{across}, {along} and {up} from the scan's origin"


def short(mm: Sequence[float]) -> str:
    """Return a place as a part of a file's name, to a tenth of a millimetre.

    Examples:
        >>> short((10.2, -32, 24.4)), short((-0.04, 7.96, -3))
        ('R10d2P32S24d4', 'R0A8I3')
    """
    parts = []
    for value, (plus, minus) in zip(mm, LETTERS, strict=True):
        rounded = round(value, 1) + 0.0
        parts.append(f"{plus if rounded >= 0 else minus}{abs(rounded):g}".replace(".", "d"))
    return "".join(parts)


def standing(volume: np.ndarray, mask: np.ndarray, voxel: Index, among: str) -> Standing:
    """Return how high a voxel stands in its own map, ``(I, J, K)``, among the voxels of the mask."""
    values = volume[mask]
    return Standing(int(np.count_nonzero(values >= volume[voxel])), int(values.size), among)


def peaks(
    volume: np.ndarray, mask: np.ndarray, grid: Grid, count: int, apart_mm: float = APART_MM
) -> list[Index]:
    """Return the highest voxels of a map that lie apart from each other, the highest first.

    Args:
        volume: ``(I, J, K)``, higher is more novel.
        mask: ``(I, J, K)`` bool.
        grid: Where they are.
        count: At most so many.
        apart_mm: Of two nearer to each other than this, the lower is left out.

    Raises:
        SettingsError: Less than one is asked for.
    """
    if count < 1:
        raise SettingsError(f"peaks must be at least 1, got {count}")
    places = np.argwhere(mask)
    values = volume[mask].astype(np.float64)
    at_mm = places @ grid.affine[:3, :3].T
    found: list[Index] = []
    while len(found) < count and np.isfinite(values).any():
        best = int(np.nanargmax(values))
        if values[best] == -np.inf:
            break
        i, j, k = (int(n) for n in places[best])
        found.append((i, j, k))
        values[np.linalg.norm(at_mm - at_mm[best], axis=1) < apart_mm] = -np.inf
    return found


__all__ = ["Index", "Place", "Standing", "in_words", "mm_of", "peaks", "short", "standing", "voxel_at"]
