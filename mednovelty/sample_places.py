"""Where the samples that a detector compares with come from: which scan, and where in it, in millimetres.

Centres of samples are whole or half voxels, and those of one scan mostly follow one another: as differences,
deflated, they take a few bytes a row of voxels, not twelve a voxel.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class SamplePlaces:
    """Centres of the samples of one scan, in their order.

    Attributes:
        packed: Differences of twice the ``(n, 3)`` voxel indices, deflated.
        affine: ``(4, 4)``, voxel indices to RAS+ millimetres.
        start: First of these rows that is meant.
        stop: One beyond the last.

    Examples:
        >>> places = SamplePlaces.of(np.array([[0, 0, 1], [1.5, 0, 1], [4, 2, 0]]), np.diag([2.0, 3, 1, 1]))
        >>> places.part(1, 3).mm(np.array([1, 0])).tolist()
        [[8.0, 6.0, 0.0], [3.0, 0.0, 1.0]]
    """

    packed: bytes
    affine: np.ndarray
    start: int
    stop: int

    @classmethod
    def of(cls, centres: np.ndarray, affine: np.ndarray) -> SamplePlaces:
        """Pack ``(n, 3)`` voxel indices, whole or halves."""
        halves = np.rint(2 * np.asarray(centres, np.float64)).astype(np.int32).reshape(-1, 3)
        steps = np.diff(halves, axis=0, prepend=np.zeros((1, 3), np.int32))
        packed = zlib.compress(np.ascontiguousarray(steps.T).tobytes(), 1)
        return cls(packed, np.array(affine, np.float64), 0, len(halves))

    def __len__(self) -> int:
        return self.stop - self.start

    def part(self, start: int, stop: int) -> SamplePlaces:
        """Return those from ``start`` to ``stop``, counted from the first that is meant."""
        return replace(self, start=self.start + start, stop=min(self.start + stop, self.stop))

    def kept(self, chosen: np.ndarray) -> SamplePlaces:
        """Return those that are chosen, ``(n,)`` bool."""
        return type(self).of(self._voxels()[chosen], self.affine)

    def mm(self, rows: np.ndarray) -> np.ndarray:
        """Return ``(m, 3)`` world (RAS+) coordinates of some rows."""
        found: np.ndarray = self._voxels()[rows] @ self.affine[:3, :3].T + self.affine[:3, 3]
        return found

    def _voxels(self) -> np.ndarray:
        steps = np.frombuffer(zlib.decompress(self.packed), np.int32).reshape(3, -1)
        return steps.cumsum(1).T[self.start : self.stop] / 2


@dataclass(frozen=True, slots=True, eq=False)
class NormalPlaces:
    """Where the normals of a reference come from.

    Attributes:
        scans: Ids of the scans.
        scan: ``(N,)`` int32: which of them each normal is of.
        mm: ``(N, 3)`` float32, its centre in that scan's world (RAS+) coordinates; None of voxels that came
            as arrays.
    """

    scans: tuple[str, ...]
    scan: np.ndarray
    mm: np.ndarray | None = None

    @classmethod
    def of(cls, scans: dict[str, slice], places: dict[str, SamplePlaces], rows: np.ndarray) -> NormalPlaces:
        """Return the places of some rows of a table.

        Args:
            scans: Which rows are whose.
            places: By scan; where one has none, none has.
            rows: ``(N,)`` indices.
        """
        names = tuple(scans)
        whose = np.full(len(rows), -1, np.int32)
        mm = np.zeros((len(rows), 3), np.float32)
        for number, (name, own) in enumerate(scans.items()):
            of_scan = (rows >= own.start) & (rows < own.stop)
            whose[of_scan] = number
            if of_scan.any() and name in places:
                mm[of_scan] = places[name].mm(rows[of_scan] - own.start)
        known = all(names[number] in places for number in np.unique(whose))
        return cls(names, whose, mm if known else None)

    def among(self, ids: Sequence[str]) -> NormalPlaces | None:
        """Return the same with another list of scans; None where a normal is of none of these."""
        place = {id: number for number, id in enumerate(ids)}
        turned = np.array([place.get(name, -1) for name in self.scans], np.int32)[self.scan]
        return None if (turned < 0).any() else replace(self, scans=tuple(ids), scan=turned)

    def told(self, normal: int) -> tuple[str, tuple[float, float, float] | None]:
        """Return a normal's scan, and where it is in millimetres."""
        name = self.scans[int(self.scan[normal])]
        if self.mm is None:
            return name, None
        x, y, z = (round(float(value), 2) for value in self.mm[normal])
        return name, (x, y, z)


__all__ = ["NormalPlaces", "SamplePlaces"]
